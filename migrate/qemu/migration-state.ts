import { PeerError, VhuError } from "../../src/errors.ts";
import { Deadline } from "../../src/sys/mod.ts";
import { qmpMigration } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

/** A VM stands still meanwhile. */
const POLL_MS = 1;
const ENDED = ["completed", "failed", "cancelled", "none"];

/** Waits until no migration is under way; how it ended, "none" where there was none. */
export async function waitForMigrationEnd(client: QmpClient, timeoutMs: number): Promise<string> {
  const deadline = new Deadline(timeoutMs);
  for (;;) {
    const { status = "none" } = await client.request("query-migrate", { answer: qmpMigration });
    if (ENDED.includes(status)) return status;
    if (deadline.expired) throw new PeerError(`QEMU's migration is still "${status}" after ${timeoutMs} ms`);
    await Bun.sleep(POLL_MS);
  }
}

/** The error of a migration that broke off, with QEMU's own reason where it still tells one. */
export async function migrationError(client: QmpClient, what: string): Promise<VhuError> {
  try {
    const { "error-desc": reason } = await client.request("query-migrate", { answer: qmpMigration });
    return new PeerError(reason === undefined ? what : `${what}: ${reason}`);
  } catch (error) {
    if (!(error instanceof VhuError)) throw error;
    return new PeerError(`${what}: QEMU is gone`, { cause: error });
  }
}
