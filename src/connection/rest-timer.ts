import type { EventLoop } from "../sys/mod.ts";
import type { Connection } from "./connection.ts";

/**
 * Ends the wait for the rest of a message: nothing makes a socket ready when the peer stops inside one, so the message's
 * time is watched by a timer of the loop that serves the connection.
 */
export class RestTimer implements Disposable {
  #cancel: (() => void) | undefined;

  /** @param onTime receives again, which throws when the time is over */
  constructor(
    readonly loop: EventLoop,
    readonly connection: Connection,
    readonly onTime: () => void,
  ) {}

  /** To be called when a receive gave nothing. A timer that is set already looks again when it is due. */
  arm(): void {
    const timeoutMs = this.connection.restTimeoutMs;
    if (timeoutMs === undefined || this.#cancel !== undefined) return;
    this.#cancel = this.loop.schedule(timeoutMs, () => {
      this.#cancel = undefined;
      this.onTime();
    });
  }

  [Symbol.dispose](): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
