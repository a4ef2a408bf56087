import { rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { QmpClient } from "../../../migrate/qemu/qmp-client.ts";
import { PROGRAM } from "../../bin/run-vhu.ts";
import { buildGuest, type Guest, type RunningQemu } from "../../peers/mod.ts";
import { startListening } from "../../support/living-guest.ts";
import { output, program } from "./processes.ts";

export const MEMORY_MIB = 2048;
const DATA_BYTES = 2 ** 30;
const TIMEOUT_MS = 120_000;
const POLL_MS = 1;

/** A guest of 2 GiB with 1 GiB of real data in its memory, which counts as fast as it can. */
export class BenchGuest {
  readonly #guest: Guest;
  readonly #disk: string;

  private constructor(
    readonly folder: string,
    guest: Guest,
    disk: string,
  ) {
    this.#guest = guest;
    this.#disk = disk;
  }

  static async make(folder: string): Promise<BenchGuest> {
    const disk = join(folder, "data.raw");
    await output({ words: [...program("fill-guest-memory"), disk, `${DATA_BYTES}`] });
    const init = `mount -o remount,size=90% /tmp
dd if=/dev/vda of=/tmp/data bs=1M iflag=direct 2>/dev/null || cat /dev/vda > /tmp/data
echo FILLED
i=0; while :; do i=$((i+1)); echo "COUNT $i"; done`;
    return new BenchGuest(folder, buildGuest({ dir: folder, modules: ["virtio_blk"], init }), disk);
  }

  /** @param memoryObject as `startQemu` takes it; shared memory unless told */
  start(name: string, args: readonly string[] = [], memoryObject?: string): Promise<RunningQemu> {
    return startListening({
      dir: this.folder,
      name,
      guest: this.#guest,
      memoryMib: MEMORY_MIB,
      args: ["-drive", `if=virtio,format=raw,readonly=on,file=${this.#disk}`, ...args],
      ...(memoryObject === undefined ? {} : { memoryObject }),
    });
  }

  async boot(name: string, args: readonly string[] = []): Promise<RunningQemu> {
    const qemu = await this.start(name, args);
    // It lives as long as the bench, which does not wait for it.
    qemu.process.unref();
    await qemu.waitForSerial(/FILLED[\s\S]*COUNT 10\n/, TIMEOUT_MS);
    return qemu;
  }

  /** Removes the file of a counter, so that only a new one is seen. */
  forget(name: string): void {
    rmSync(join(this.folder, `${name}.serial`), { force: true });
  }

  /** Until the guest of that name has counted on. */
  async counts(name: string): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    while (Bun.file(join(this.folder, `${name}.serial`)).size === 0) {
      if (performance.now() > deadline) throw new Error(`the guest ${name} does not count`);
      await Bun.sleep(POLL_MS);
    }
  }
}

/** Commands on a monitor, one after the other. */
export async function command(path: string, ...commands: readonly [string, Record<string, unknown>?][]) {
  using client = await QmpClient.connect(path);
  for (const [name, given = {}] of commands)
    await client.request(name, { answer: z.unknown(), arguments: given, timeoutMs: TIMEOUT_MS });
}

/** QEMU's own save of a VM that runs, to its end; it goes on afterwards. Unless live, it stands still for nearly all of it. */
export async function qemuSave(path: string, uri: string, options: QemuFileOptions): Promise<void> {
  using client = await QmpClient.connect(path);
  const ask = (name: string, given: Record<string, unknown> = {}) =>
    client.request(name, {
      answer: z.looseObject({ status: z.string().optional() }),
      arguments: given,
      timeoutMs: TIMEOUT_MS,
    });
  await ask("migrate-set-capabilities", { capabilities: capabilitiesOf(options) });
  await ask("migrate-set-parameters", parametersOf(options));
  await ask("migrate", { uri });
  for (;;) {
    const { status } = await ask("query-migrate");
    if (status === "completed") break;
    if (status === "failed")
      throw new Error(`QEMU's own save failed: ${JSON.stringify(await ask("query-migrate"))}`);
    await Bun.sleep(1);
  }
  await ask("cont");
}

export interface QemuFileOptions {
  readonly mappedRam?: boolean;
  /** With QEMU's own limit for the downtime. */
  readonly isLive?: boolean;
}

export function capabilitiesOf({ mappedRam = false }: QemuFileOptions) {
  return ["mapped-ram", "multifd"].map((capability) => ({ capability, state: mappedRam }));
}

export function parametersOf({ mappedRam, isLive }: QemuFileOptions): Record<string, unknown> {
  return {
    "max-bandwidth": 2 ** 40,
    "downtime-limit": isLive ? 300 : 2_000_000,
    ...(mappedRam ? { "multifd-channels": 2 } : {}),
  };
}

export const vhuWords = (...words: string[]): string[] => [...PROGRAM, ...words];

export async function run(words: readonly string[]): Promise<void> {
  const child = Bun.spawn([...words], { stdout: "ignore", stderr: "inherit" });
  if ((await child.exited) !== 0) throw new Error(`${words.join(" ")} failed`);
}
