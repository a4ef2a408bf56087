import type { MoveOptions, VmDriver, VmSource } from "./driver.ts";
import type { Operation } from "./operations/mod.ts";

export interface LoadOptions extends MoveOptions {
  /** Leave the machine suspended, as prepared. */
  readonly paused?: boolean | undefined;
  /** The log gets each phase before it begins. */
  readonly operation?: Operation | undefined;
}

/** Loads a snapshot through a driver. A load that fails leaves nothing behind: what was built is discarded. */
export async function loadMachine(
  driver: VmDriver,
  source: VmSource,
  options: LoadOptions = {},
): Promise<void> {
  const { operation } = options;
  try {
    operation?.phase("loading");
    await driver.prepareLoad(source, options);
    options.signal?.throwIfAborted();
    operation?.phase(options.paused || wasPaused(source) ? "leaving" : "resuming");
    if (options.paused) await driver.leavePrepared();
    else await driver.resume();
  } catch (error) {
    await discardQuietly(driver);
    throw error;
  }
}

/** A QEMU that was paused when it was saved is paused again. */
function wasPaused({ manifest }: VmSource): boolean {
  const { runState = "running" } = manifest.machine ?? {};
  return runState !== "running";
}

/** The error that made the load fail is the one to tell; that the peer is gone as well adds nothing. */
async function discardQuietly(driver: VmDriver): Promise<void> {
  try {
    await driver.discard();
  } catch {
    return;
  }
}
