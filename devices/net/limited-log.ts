import type { LogDetails, Logger } from "../../src/logger.ts";

/** Lines before only each power of two is logged. */
const LOGGED = 8;

/** Warns of what a guest or a network can make happen any number of times. */
export class LimitedLog {
  #count = 0;

  constructor(readonly logger: Logger) {}

  warn(message: string, details: LogDetails = {}): void {
    this.#count++;
    const isPowerOfTwo = (this.#count & (this.#count - 1)) === 0;
    if (this.#count <= LOGGED || isPowerOfTwo) this.logger.warn(message, { ...details, count: this.#count });
  }
}
