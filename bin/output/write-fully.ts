import { writeSync } from "node:fs";
import { CancelledError, SyscallError } from "../../src/errors.ts";

const SIGPIPE = 13;
const STDERR = 2;

/**
 * Writes text to a descriptor before it returns.
 *
 * @throws CancelledError with SIGPIPE's number when the reader is gone, SyscallError e.g. where the disk behind it is full
 */
export function writeFully(fd: number, text: string): void {
  let left: Uint8Array = new TextEncoder().encode(text);
  while (left.length > 0) {
    try {
      left = left.subarray(writeSync(fd, left));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EPIPE") throw new CancelledError("the reader of the output is gone", SIGPIPE);
      // Whoever shares the terminal or pipe with us made it non-blocking.
      if (code !== "EAGAIN" && code !== "EINTR")
        throw new SyscallError("write", code ?? "EIO", fd === STDERR ? "stderr" : "stdout");
      Bun.sleepSync(1);
    }
  }
}

/** True for the error of a closed pipe, which ends a command without a word, as SIGPIPE would. */
export function isBrokenPipe(error: unknown): boolean {
  return error instanceof CancelledError && error.exitStatus === 128 + SIGPIPE;
}
