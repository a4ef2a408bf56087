import { type ErrorDetails, VhuError } from "../errors.ts";

/**
 * The other side broke a rule of its ring. Nothing of the offending chain was believed, and the ring's own state is
 * as before the call: stop the ring and signal SET_VRING_ERR's fd.
 */
export class RingError extends VhuError {
  constructor(message: string, details: ErrorDetails = {}) {
    super("RING", message, { details });
  }
}
