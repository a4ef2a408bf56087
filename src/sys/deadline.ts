/** A point in time by which something must have happened. `Infinity` means never. */
export class Deadline {
  readonly #endMs: number;

  constructor(readonly timeoutMs: number) {
    this.#endMs = performance.now() + timeoutMs;
  }

  /** Milliseconds left, 0 when none are. */
  get remainingMs(): number {
    return Math.max(0, this.#endMs - performance.now());
  }

  get expired(): boolean {
    return performance.now() >= this.#endMs;
  }

  /** What poll and epoll_wait take: whole milliseconds rounded up, at most 2^31-1, -1 for no deadline. */
  get pollTimeoutMs(): number {
    const remaining = this.remainingMs;
    return remaining === Infinity ? -1 : Math.min(Math.ceil(remaining), 0x7fffffff);
  }
}
