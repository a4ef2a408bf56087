/** Less than this much better is not better. */
const LEAST_GAIN = 0.1;
/** Passes, and time, in which nothing got better. Passes alone can be milliseconds, time alone can be one long pass. */
const STALLED_PASSES = 8;
const STALLED_MS = 5_000;

/**
 * Whether a machine that is copied while it runs comes to an end of it: what each pass leaves for the next one has to
 * get less, now and then.
 */
export class Convergence {
  #best = Infinity;
  #passesSince = 0;
  #bestAtMs: number;

  constructor(readonly now: () => number = () => performance.now()) {
    this.#bestAtMs = now();
  }

  /**
   * After each pass.
   * @param isThrottleRising The machine is slowed down more and more: what it did so far tells nothing.
   * @returns false when there is no point in going on
   */
  add(remainingBytes: number, isThrottleRising: boolean): boolean {
    this.#passesSince += 1;
    if (isThrottleRising || remainingBytes < this.#best * (1 - LEAST_GAIN)) {
      this.#best = Math.min(this.#best, remainingBytes);
      this.#passesSince = 0;
      this.#bestAtMs = this.now();
      return true;
    }
    return this.#passesSince < STALLED_PASSES || this.now() - this.#bestAtMs < STALLED_MS;
  }
}
