import { StateError } from "../errors.ts";
import { type Fd, isSealedAgainstShrinking } from "../sys/mod.ts";

/**
 * Refuses a file that its sender could still shrink: touching a mapped page past its end is SIGBUS, and the end of the
 * process. @throws StateError
 */
export function requireSealed(fd: Fd, what: string): void {
  if (isSealedAgainstShrinking(fd)) return;
  throw new StateError(
    `${what} is not sealed against shrinking, which an untrusted peer must do (F_SEAL_SHRINK)`,
  );
}
