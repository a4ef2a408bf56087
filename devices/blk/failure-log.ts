import type { Logger } from "../../src/logger.ts";

/** Lines about failed requests before only each power of two is logged: a guest can make any number of them. */
const LOGGED_FAILURES = 16;

/** Logs what went wrong with a disk's requests, without letting a guest fill the log. */
export class FailureLog {
  #failures = 0;

  constructor(
    readonly path: string,
    readonly logger: Logger,
  ) {}

  warn(message: string, details: Readonly<Record<string, number>> = {}): void {
    const count = ++this.#failures;
    if (count > LOGGED_FAILURES && (count & (count - 1)) !== 0) return;
    this.logger.warn(`${this.path}: ${message}`, { ...details, failures: count });
  }
}
