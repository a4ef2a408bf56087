import { CompatibilityError } from "../src/errors.ts";
import type { Fd } from "../src/sys/mod.ts";
import { type LoadOptions, loadMachine } from "./load.ts";
import {
  type QemuCommand,
  type QemuDriver,
  type QemuDriverOptions,
  type QemuLaunch,
  startQemu,
} from "./qemu/mod.ts";
import { GuestMemory, sourceWithMemory } from "./ram/mod.ts";
import type { SnapshotReader } from "./snapshot/mod.ts";

export interface LoadNewQemuOptions extends LoadOptions {
  /** Load although a disk's file has changed. */
  readonly force?: boolean | undefined;
  /** For QEMU to have open as long as it lives; they stay the caller's. */
  readonly lifeLines?: readonly Fd[] | undefined;
}

/**
 * Starts a QEMU for a snapshot and loads it: while QEMU starts, its memory is filled beside it on all processors, each
 * piece after its checksum held. QEMU gets the state of its devices, and runs, only when all of that was well. A load that
 * fails leaves no process.
 *
 * @returns the QEMU, on its own from now on
 * @throws PeerError with QEMU's last words when it ends, FormatError when the snapshot is damaged, CompatibilityError
 */
export async function loadNewQemu(
  reader: SnapshotReader,
  command: QemuCommand,
  options: LoadNewQemuOptions = {},
): Promise<QemuLaunch> {
  const { machine } = reader.manifest;
  if (machine === undefined) throw new CompatibilityError("the snapshot holds no QEMU machine");
  using memory = GuestMemory.create(reader.memoryMap);
  using launch = startQemu(reader, memory, command, options.lifeLines);
  options.operation?.started("QEMU", launch.pid);
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  // Whatever fails first ends the other, and is what is told.
  const end = (error: unknown): never => {
    stop.abort(error);
    throw error;
  };
  try {
    const [connected, filled] = await Promise.allSettled([
      connectAndPrepare(launch, machine, { signal, force: options.force }).catch(end),
      memory.fill(reader, { ...options, signal }).catch(end),
    ]);
    using driver = connected.status === "fulfilled" ? connected.value : undefined;
    if (driver === undefined || filled.status === "rejected") throw stop.signal.reason;
    await loadMachine(driver, sourceWithMemory(reader, memory), options);
  } catch (error) {
    throw launch.explain(error);
  }
  launch.release();
  return launch;
}

async function connectAndPrepare(
  launch: QemuLaunch,
  machine: Readonly<Record<string, unknown>>,
  options: QemuDriverOptions,
): Promise<QemuDriver> {
  using stack = new DisposableStack();
  const driver = stack.use(await launch.connect(options));
  await driver.prepareIncoming({ machine });
  stack.move();
  return driver;
}
