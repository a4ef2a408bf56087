import type { PrecopyOptions, VmDriver, VmSink } from "../driver.ts";
import { MachineDriver } from "../machine/mod.ts";
import type { SnapshotManifest } from "../snapshot/mod.ts";

/** Copies a machine while it runs; a native machine, whose driver cannot do that yet, while it stands still. */
export function copyMachine(
  driver: VmDriver,
  sink: VmSink,
  options: PrecopyOptions,
): Promise<SnapshotManifest> {
  return driver instanceof MachineDriver ? driver.save(sink, options) : driver.startPrecopy(sink, options);
}

/** The machine will not run here again. */
export async function giveUp(driver: VmDriver): Promise<void> {
  await (driver instanceof MachineDriver ? driver.discard() : driver.release());
}
