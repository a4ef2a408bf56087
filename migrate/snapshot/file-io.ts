import { closeSync, constants, fsyncSync, openSync, readSync, writeSync } from "node:fs";
import { FormatError, PeerError, SyscallError } from "../../src/errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";

/** O_CLOEXEC, which node:fs does not name: a VM that is started meanwhile must not inherit the file. */
export const O_CLOEXEC = 0o2000000;
/** How long to sleep where a non-blocking pipe is full or empty. */
const PIPE_PAUSE_MS = 1;

/** Runs one call of node:fs; its error becomes a SyscallError that names the file. */
export function systemCall<Result>(call: string, what: string, action: () => Result): Result {
  for (;;) {
    try {
      return action();
    } catch (error) {
      const errno = (error as NodeJS.ErrnoException).code;
      if (errno === "EINTR") continue;
      if (errno === undefined || !/^E[A-Z0-9]+$/.test(errno)) throw error;
      throw new SyscallError(call, errno, what, { path: what });
    }
  }
}

/** All of `bytes` at the file's own position, over short writes and full non-blocking pipes. */
export function writeAll(fd: number, bytes: Uint8Array, what: string): void {
  for (let done = 0; done < bytes.length; ) {
    done += whenReady(what, () =>
      systemCall("write", what, () => writeSync(fd, bytes, done, bytes.length - done)),
    );
  }
}

/** Up to `into.length` bytes from a pipe; 0 at its end. */
export function readSome(fd: number, into: Uint8Array, what: string): number {
  return whenReady(what, () => systemCall("read", what, () => readSync(fd, into, 0, into.length, null)));
}

/** Exactly `into.length` bytes at `offset`. @throws FormatError if the file ends before. */
export function readFully(fd: number, into: Uint8Array, offset: number, what: string, section: string): void {
  for (let done = 0; done < into.length; ) {
    const count = systemCall("pread", what, () =>
      readSync(fd, into, done, into.length - done, offset + done),
    );
    if (count === 0) {
      throw new FormatError(
        `the file ends early, ${into.length - done} more bytes were expected`,
        section,
        offset + done,
      );
    }
    done += count;
  }
}

/** Makes a new name in `directory` last. */
export function syncDirectory(directory: string): void {
  const fd = systemCall("open", directory, () =>
    openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY | O_CLOEXEC),
  );
  try {
    systemCall("fsync", directory, () => fsyncSync(fd));
  } finally {
    closeSync(fd);
  }
}

function whenReady(what: string, action: () => number): number {
  const deadline = performance.now() + DEFAULT_TRANSFER_IDLE_TIMEOUT_MS;
  for (;;) {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof SyscallError) || error.errno !== "EAGAIN") throw error;
      if (performance.now() > deadline) {
        throw new PeerError(`nothing moved through ${what} for ${DEFAULT_TRANSFER_IDLE_TIMEOUT_MS} ms`);
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PIPE_PAUSE_MS);
    }
  }
}
