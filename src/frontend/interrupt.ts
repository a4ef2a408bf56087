import { createEventFd, disposeAll, drainEvent, type Fd } from "../sys/mod.ts";

/**
 * How a device interrupts its driver: an event fd per vector, one fallback event for queues without a vector of their
 * own, and one for config changes.
 */
export class Interrupt implements Disposable {
  readonly fallback = createEventFd("interrupt, fallback");
  readonly configChange = createEventFd("interrupt, config change");
  readonly #vectors = new Map<number, Fd>();

  /** The event of a vector; it comes into being when it is first asked for. */
  callFor(vector: number | undefined): Fd {
    if (vector === undefined) return this.fallback;
    let fd = this.#vectors.get(vector);
    if (fd === undefined) {
      fd = createEventFd(`interrupt, vector ${vector}`);
      this.#vectors.set(vector, fd);
    }
    return fd;
  }

  /** True if the vector was signalled since it was last asked. */
  take(vector: number | undefined): boolean {
    return drainEvent(this.callFor(vector));
  }

  [Symbol.dispose](): void {
    disposeAll([this.fallback, this.configChange, ...this.#vectors.values()]);
  }
}
