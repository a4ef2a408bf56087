import { UsageError } from "../../src/errors.ts";
import type { EventLoop } from "../../src/sys/mod.ts";

/** So many bytes in each period. */
export interface RateLimit {
  readonly bytes: number;
  readonly periodMs: number;
}

/** What of the period that runs is used up. */
export interface QuotaState {
  /** Bytes beyond the limit are a debt of the periods that follow; they count, so this may be more than `bytes`. */
  readonly usedBytes: number;
  /** Time until the next period begins, in whole milliseconds; 0 when none runs. */
  readonly leftMs: number;
}

/**
 * Counts bytes against a limit per period. A period begins with the first byte after the one before has ended. What must
 * not be split, e.g. a frame, may go beyond the limit; the periods that follow pay for it.
 */
export class ByteQuota {
  #usedBytes = 0;
  /** When the period that runs will be over (performance.now); undefined when none runs. */
  #endMs: number | undefined;
  #cancel: (() => void) | undefined;

  /** @param limit undefined: no limit, and nothing is counted. @throws UsageError for one that lets nothing pass */
  constructor(
    readonly loop: EventLoop,
    readonly limit: RateLimit | undefined,
    /** Called on the loop when bytes may be moved again, after `wait`. */
    readonly onRefill: () => void,
  ) {
    if (limit === undefined || (isWhole(limit.bytes) && isWhole(limit.periodMs))) return;
    throw new UsageError(
      `a rate limit needs whole numbers from 1 on, not ${limit.bytes} bytes in ${limit.periodMs} ms`,
    );
  }

  /** Bytes that may be moved now; Infinity without a limit. */
  get availableBytes(): number {
    if (this.limit === undefined) return Infinity;
    this.#settle(this.limit);
    return Math.max(0, this.limit.bytes - this.#usedBytes);
  }

  take(sizeBytes: number): void {
    if (this.limit === undefined) return;
    this.#endMs ??= performance.now() + this.limit.periodMs;
    this.#usedBytes += sizeBytes;
  }

  /** Asks for `onRefill`, once, when there is something to take again. Asking twice is asking once. */
  wait(): void {
    if (this.#cancel !== undefined) return;
    this.#cancel = this.loop.schedule(this.#leftMs, () => {
      this.#cancel = undefined;
      // A debt may last for more than one period.
      if (this.availableBytes > 0) this.onRefill();
      else this.wait();
    });
  }

  /** Nobody waits any more. */
  cancel(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  capture(): QuotaState {
    return { usedBytes: this.#usedBytes, leftMs: Math.ceil(this.#leftMs) };
  }

  /** Takes over what another process has used up. The limit is this one's own, and no debt is longer than one period. */
  restore(state: QuotaState): void {
    if (this.limit === undefined) return;
    this.#usedBytes = Math.min(state.usedBytes, this.limit.bytes * 2);
    const leftMs = Math.min(state.leftMs, this.limit.periodMs);
    this.#endMs = state.usedBytes === 0 ? undefined : performance.now() + leftMs;
  }

  get #leftMs(): number {
    return this.#endMs === undefined ? 0 : Math.max(0, this.#endMs - performance.now());
  }

  /** Each period that is over has paid for one limit's worth. */
  #settle({ bytes, periodMs }: RateLimit): void {
    const now = performance.now();
    if (this.#endMs === undefined || now < this.#endMs) return;
    const periods = 1 + Math.floor((now - this.#endMs) / periodMs);
    this.#usedBytes = Math.max(0, this.#usedBytes - periods * bytes);
    this.#endMs = this.#usedBytes > 0 ? this.#endMs + periods * periodMs : undefined;
  }
}

function isWhole(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1;
}
