import type { MoveOptions, VmDriver, VmSource } from "./driver.ts";

export interface LoadOptions extends MoveOptions {
  /** Leave the machine suspended, as prepared. */
  readonly paused?: boolean | undefined;
}

/** Loads a snapshot through a driver. A load that fails leaves nothing behind: what was built is discarded. */
export async function loadMachine(
  driver: VmDriver,
  source: VmSource,
  options: LoadOptions = {},
): Promise<void> {
  try {
    await driver.prepareLoad(source, options);
    options.signal?.throwIfAborted();
    if (options.paused) await driver.leavePrepared();
    else await driver.resume();
  } catch (error) {
    await discardQuietly(driver);
    throw error;
  }
}

/** The error that made the load fail is the one to tell; that the peer is gone as well adds nothing. */
async function discardQuietly(driver: VmDriver): Promise<void> {
  try {
    await driver.discard();
  } catch {
    return;
  }
}
