import type { Logger } from "../../logger.ts";
import type { Fd } from "../../sys/mod.ts";
import type { DeviceQueue } from "../device-queue.ts";

/** Serves one started ring in a ring Worker. No promise, timer or file API works there; nothing may allocate per request. */
export interface RingRunner extends Disposable {
  /**
   * Takes every chain that came in, ends those that are done, publishes once. Called again and again while the Worker spins,
   * so it makes no system call where there is nothing to do. Returns true when there was something.
   * @throws RingError when the driver broke a rule: the ring is then out of service until it is stopped
   */
  poll(): boolean;
  /**
   * As `poll`, but takes nothing new. Returns true when nothing that was popped is worked on any more. A runner that ends
   * every chain within `poll` leaves it out.
   */
  drain?(): boolean;
  /** Readable when `poll` has something to end. Stays the runner's. */
  readonly completions?: Fd | undefined;
  /** It cannot take more chains until some are done: then those that wait are no reason to stay awake. */
  readonly isFull?: boolean;
}

/** What the module of a device's `ringProgram` exports as `createRunner`. `parameters`: from `startQueueInWorker`. */
export type CreateRunner = (queue: DeviceQueue, parameters: unknown, logger: Logger) => RingRunner;
