import type { QuotaState } from "../rate-limit/mod.ts";
import type { StateFields } from "../state/mod.ts";

/** Version of the sections below. */
export const RNG_STATE_VERSION = 1;

/** What an entropy source carries from one process to the next: how far its rate limit is used up. No random bytes. */
export type RngState = QuotaState;

/** @throws FormatError */
export function checkRngState(fields: StateFields): RngState {
  return {
    usedBytes: fields.integer("usedBytes", 0, Number.MAX_SAFE_INTEGER),
    leftMs: fields.integer("leftMs", 0, Number.MAX_SAFE_INTEGER),
  };
}
