import type { PrecopyOptions, VmDriver, VmSink } from "../driver.ts";
import type { SnapshotManifest } from "../snapshot/mod.ts";

/** Copies a machine while it runs. */
export function copyMachine(
  driver: VmDriver,
  sink: VmSink,
  options: PrecopyOptions,
): Promise<SnapshotManifest> {
  return driver.startPrecopy(sink, options);
}

/** The machine will not run here again. */
export async function giveUp(driver: VmDriver): Promise<void> {
  await driver.release();
}
