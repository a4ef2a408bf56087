/** `--bandwidth-max`: lets bytes through at a rate, with a burst of a tenth of a second. */
export class RateLimit {
  #freeAtMs: number;

  /** @param bytesPerSecond undefined for no limit */
  constructor(
    readonly bytesPerSecond: number | undefined,
    readonly now: () => number = () => performance.now(),
  ) {
    this.#freeAtMs = now();
  }

  /** How long to wait before these bytes may go. */
  takeMs(bytes: number): number {
    if (this.bytesPerSecond === undefined) return 0;
    const nowMs = this.now();
    const startMs = Math.max(this.#freeAtMs, nowMs - BURST_MS);
    this.#freeAtMs = startMs + (bytes / this.bytesPerSecond) * 1000;
    return Math.max(0, startMs - nowMs);
  }
}

const BURST_MS = 100;
