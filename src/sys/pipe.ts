import { F, O, SPLICE } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { disposeAll, Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

export interface PipeEnds extends Disposable {
  readonly readEnd: Fd;
  readonly writeEnd: Fd;
}

/** A pipe, close-on-exec; `nonBlocking` applies to both ends. */
export function createPipe(options: { nonBlocking?: boolean } = {}): PipeEnds {
  const numbers = new NativeBuffer(8);
  const flags = O.CLOEXEC | (options.nonBlocking ? O.NONBLOCK : 0);
  check(libc.pipe2(numbers.address, flags), "pipe2", "");
  const readEnd = new Fd(numbers.view.getInt32(0, true), "pipe read end");
  const writeEnd = new Fd(numbers.view.getInt32(4, true), "pipe write end");
  return { readEnd, writeEnd, [Symbol.dispose]: () => disposeAll([readEnd, writeEnd]) };
}

/** Asks for a larger pipe; returns the size it has then. What is refused (pipe-max-size, not a pipe) is left alone. */
export function growPipe(fd: Fd, sizeBytes: number): number | undefined {
  libc.fcntl(fd.number, F.SETPIPE_SZ, sizeBytes);
  const size = libc.fcntl(fd.number, F.GETPIPE_SZ, 0);
  return size < 0 ? undefined : size;
}

/**
 * Moves up to `sizeBytes` from one fd to another without a copy through this process; one of them must be a pipe.
 * Never waits. Returns the bytes moved, 0 at the end of the input, "would-block" when either side is not ready.
 */
export function spliceSome(source: Fd, target: Fd, sizeBytes: number): number | "would-block" {
  for (;;) {
    const moved = libc.splice(source.number, 0, target.number, 0, sizeBytes, SPLICE.MOVE | SPLICE.NONBLOCK);
    if (moved >= 0) return Number(moved);
    const error = lastErrno();
    if (error === Errno.EAGAIN) return "would-block";
    if (error !== Errno.EINTR) throw syscallError("splice", `${source.label} to ${target.label}`);
  }
}
