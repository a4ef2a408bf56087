import { DEFAULT_DOWNTIME_MAX_MS } from "../driver.ts";

export interface ExpectedMoveFacts {
  /** Of the machine's memory, what is in use. */
  readonly inUseBytes: number;
  /** What the way takes. */
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
  /** How fast the machine changes its memory, where that is known. */
  readonly dirtyBytesPerSecond?: number | undefined;
  readonly downtimeMaxMs?: number | undefined;
}

export interface ExpectedMove {
  /** Undefined for a machine that changes its memory faster than the way takes it. */
  readonly expectedMs: number | undefined;
  /** The rest that it is stopped for, and the words of the hand-over; what the destination takes to load comes on top. */
  readonly expectedDowntimeMs: number;
}

/** Of the hand-over while the machine stands still: all is sent and loaded, it is given up and runs there. */
const ROUND_TRIPS = 2;

/**
 * How long a move will take, before it begins: each pass brings what was changed in the one before, so that all of them take
 * 1 / (1 - changed / sent) times as long as the first. Nothing is taken for compressible.
 */
export function expectedMove(facts: ExpectedMoveFacts): ExpectedMove {
  const {
    inUseBytes,
    bytesPerSecond,
    roundTripMs,
    dirtyBytesPerSecond = 0,
    downtimeMaxMs = DEFAULT_DOWNTIME_MAX_MS,
  } = facts;
  const share = dirtyBytesPerSecond / bytesPerSecond;
  const onceMs = (inUseBytes / bytesPerSecond) * 1000;
  // A rest as small as the pause allows is there at once where the memory hardly changes.
  const restMs = share === 0 ? Math.min(onceMs, downtimeMaxMs) : downtimeMaxMs;
  return {
    expectedMs: share < 1 ? onceMs / (1 - share) : undefined,
    expectedDowntimeMs: restMs + ROUND_TRIPS * roundTripMs,
  };
}
