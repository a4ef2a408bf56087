import { PeerError } from "../../src/errors.ts";
import {
  LIVE_HANDOVER_TIMEOUT_MS,
  LIVE_LAST_WORD_TIMEOUT_MS,
  LIVE_STALL_TIMEOUT_MS,
  LIVE_STEP_TIMEOUT_MS,
} from "../../src/limits.ts";

/** For how long a side waits for the other one, which is there and brings nothing that counts. */
export interface Patience {
  /** For an answer that needs no work. */
  readonly stepMs: number;
  /** While memory and states are on their way, or are loaded. */
  readonly stallMs: number;
  /** For the words of a hand-over, each of which needs a moment's work. */
  readonly handOverMs: number;
  /** For the same after Ctrl-C: who runs the machine is still worth to know. */
  readonly lastWordMs: number;
}

export const PATIENCE: Patience = {
  stepMs: LIVE_STEP_TIMEOUT_MS,
  stallMs: LIVE_STALL_TIMEOUT_MS,
  handOverMs: LIVE_HANDOVER_TIMEOUT_MS,
  lastWordMs: LIVE_LAST_WORD_TIMEOUT_MS,
};

/** Of a conversation: when it got on last, and for how long it may be without a connection. */
export interface Pulse {
  readonly progressMs: number;
  readonly graceMs: number;
}

const MAX_LOOK_MS = 250;

/**
 * Does work that waits for the other side, for as long as that gets on.
 * @param limitMs asked again and again
 * @throws PeerError when it does not get on, and what the work throws
 */
export async function inTime<Result>(
  pulse: () => Pulse,
  limitMs: () => number,
  outer: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const giveUp = new AbortController();
  const startMs = performance.now();
  const look = () => {
    const [{ progressMs, graceMs }, limit] = [pulse(), limitMs()];
    if (performance.now() - Math.max(progressMs, startMs) <= limit + graceMs) return;
    giveUp.abort(new PeerError(`the other side is there and does not get on: nothing came for ${limit} ms`));
  };
  const timer = setInterval(look, Math.min(limitMs() / 4, MAX_LOOK_MS));
  try {
    return await work(AbortSignal.any(outer === undefined ? [giveUp.signal] : [giveUp.signal, outer]));
  } finally {
    clearInterval(timer);
  }
}
