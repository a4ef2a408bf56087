import { CancelledError, VhuError } from "../../src/errors.ts";

/** What the other side said went wrong there: its code and exit status are its own. */
export class RemoteError extends VhuError {
  override readonly exitStatus: number;
  constructor(error: { readonly code: string; readonly message: string; readonly exitStatus: number }) {
    super(error.code, `the other side says: ${error.message}`);
    this.exitStatus = error.exitStatus;
  }
}

/** What a session ends with: also what no error of vhu was meant to be. */
export function asVhuError(error: unknown): VhuError {
  if (error instanceof VhuError) return error;
  if (error instanceof Error && error.name === "AbortError") return new CancelledError("it was cancelled");
  return new VhuError("BUG", error instanceof Error ? error.message : String(error), { cause: error });
}
