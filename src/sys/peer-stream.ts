import { fstatSync } from "node:fs";
import { F, MSG, O, POLL } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { readSome, writeSome } from "./file.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { pollNow } from "./poll.ts";

/** What a write that never blocks may be given on a pipe that is merely ready: PIPE_BUF (POSIX, pipe(7)). */
const PIPE_BUF_BYTES = 4096;

export type Moved = number | "would-block";

/**
 * A byte stream on an fd that a peer chose: a pipe, a socket, a file. Owns the fd.
 *
 * No call here ever blocks, and the flags of the description that the peer shares stay as they are: a pipe is
 * opened anew through /proc (a description of our own, non-blocking); a socket is asked with MSG_DONTWAIT; where
 * neither works (no /proc, another user's pipe) poll says that a small transfer will not block.
 */
export class PeerStream implements Disposable {
  readonly #own: Fd | undefined;
  readonly #isSocket: boolean;
  readonly #isFile: boolean;
  readonly #canTakeAll: boolean;

  private constructor(
    readonly fd: Fd,
    direction: "read" | "write",
  ) {
    const kind = fstatSync(fd.number);
    this.#isSocket = kind.isSocket();
    this.#isFile = kind.isFile() || kind.isBlockDevice();
    this.#own = kind.isFIFO() ? reopen(fd, direction) : undefined;
    const flags = check(libc.fcntl(fd.number, F.GETFL, 0), "fcntl(F_GETFL)", fd.label);
    this.#canTakeAll = this.#isFile || this.#own !== undefined || (flags & O.NONBLOCK) !== 0;
  }

  static forReading(fd: Fd): PeerStream {
    return new PeerStream(fd, "read");
  }

  static forWriting(fd: Fd): PeerStream {
    return new PeerStream(fd, "write");
  }

  /** The fd to watch for readiness. Regular files are always ready and cannot be watched by epoll. */
  get watchable(): Fd | undefined {
    return this.#isFile ? undefined : (this.#own ?? this.fd);
  }

  /** Reads what is there into `buffer`. 0 at the end of the stream. */
  read(buffer: NativeBuffer): Moved {
    if (this.#isSocket) return this.#socket(libc.recvmsg, "recvmsg", buffer.address, buffer.sizeBytes);
    const fd = this.#own ?? this.fd;
    if (!this.#canTakeAll && (pollNow(fd, POLL.IN) & (POLL.IN | POLL.HUP)) === 0) return "would-block";
    return readSome(fd, buffer);
  }

  /** Writes some of the bytes from `offset` on. @throws SyscallError EPIPE when the reader is gone */
  write(buffer: NativeBuffer, offset: number, sizeBytes: number): Moved {
    if (this.#isSocket) return this.#socket(libc.sendmsg, "sendmsg", buffer.address + offset, sizeBytes);
    const fd = this.#own ?? this.fd;
    if (this.#canTakeAll) return writeSome(fd, buffer, offset, sizeBytes);
    if ((pollNow(fd, POLL.OUT) & (POLL.OUT | POLL.ERR)) === 0) return "would-block";
    return writeSome(fd, buffer, offset, Math.min(sizeBytes, PIPE_BUF_BYTES));
  }

  /** Closes both descriptions; for a writer this is the end of the stream. */
  [Symbol.dispose](): void {
    this.#own?.[Symbol.dispose]();
    this.fd[Symbol.dispose]();
  }

  #socket(call: typeof libc.sendmsg, name: string, address: number, sizeBytes: number): Moved {
    message.setPointer(56, address);
    message.setPointer(64, sizeBytes);
    for (;;) {
      const moved = call(this.fd.number, message.address, MSG.DONTWAIT | MSG.NOSIGNAL);
      if (moved >= 0) return Number(moved);
      const error = lastErrno();
      if (error === Errno.EAGAIN) return "would-block";
      if (error !== Errno.EINTR) throw syscallError(name, this.fd.label);
    }
  }
}

// struct msghdr (56 bytes: iov at 16, iovlen at 24) and its one iovec behind it. No control buffer: fds are not taken.
const message = new NativeBuffer(72);
message.setPointer(16, message.address + 56);
message.setPointer(24, 1);

function reopen(fd: Fd, direction: "read" | "write"): Fd | undefined {
  const path = NativeBuffer.cString(`/proc/self/fd/${fd.number}`);
  const flags = (direction === "read" ? O.RDONLY : O.WRONLY) | O.NONBLOCK | O.CLOEXEC;
  const number = libc.open(path.address, flags, 0);
  return number < 0 ? undefined : new Fd(number, `${fd.label}, opened anew`);
}
