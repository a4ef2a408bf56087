import { VhuError } from "../../src/errors.ts";
import { qmpDirtyRate } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";
import { qmpNothing } from "./qmp-messages.ts";

const POLL_MS = 20;
/** QEMU hashes its sample of pages twice, and the guest goes on meanwhile. */
const EXTRA_MS = 2_000;

/**
 * How fast a guest changes its memory, in bytes a second, by QEMU's own sample of pages. Undefined where this QEMU cannot tell,
 * or is busy with the same for somebody else.
 */
export async function dirtyRate(client: QmpClient, milliseconds: number): Promise<number | undefined> {
  try {
    const given = { "calc-time": milliseconds, "calc-time-unit": "millisecond" };
    await client.request("calc-dirty-rate", { answer: qmpNothing, arguments: given });
    const deadline = performance.now() + milliseconds + EXTRA_MS;
    for (;;) {
      await Bun.sleep(POLL_MS);
      const { status, "dirty-rate": mebibytes } = await client.request("query-dirty-rate", {
        answer: qmpDirtyRate,
      });
      if (status === "measured") return mebibytes === undefined ? undefined : mebibytes * 2 ** 20;
      if (performance.now() > deadline) return undefined;
    }
  } catch (error) {
    if (error instanceof QmpError || error instanceof VhuError) return undefined;
    throw error;
  }
}
