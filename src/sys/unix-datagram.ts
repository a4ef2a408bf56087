import { PeerError } from "../errors.ts";
import { AF_UNIX, POLL, SOCK } from "./constants.ts";
import { Deadline } from "./deadline.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { readSome, writeSome } from "./file.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { waitReadySync } from "./poll.ts";
import { socketAddress } from "./unix-address.ts";

const MAX_DATAGRAM_BYTES = 4096;

/** A UNIX socket of datagrams, whole texts: what service managers listen at. A path that begins with "@" is an abstract name. */
export class UnixDatagram implements Disposable {
  private constructor(readonly fd: Fd) {}

  /** @throws PeerError when nobody is there */
  static connect(path: string): UnixDatagram {
    return UnixDatagram.#open(path, "connect");
  }

  /** Listens. The path must not be there yet, and stays behind. */
  static bind(path: string): UnixDatagram {
    return UnixDatagram.#open(path, "bind");
  }

  static #open(path: string, call: "connect" | "bind"): UnixDatagram {
    const { address, sizeBytes } = socketAddress(path);
    const isAbstract = path.startsWith("@");
    if (isAbstract) address.bytes[2] = 0;
    const label = `datagrams of ${path}`;
    const type = SOCK.DGRAM | SOCK.CLOEXEC | SOCK.NONBLOCK;
    const socket = new UnixDatagram(new Fd(check(libc.socket(AF_UNIX, type, 0), "socket", label), label));
    // An abstract name is as long as it is, without a NUL at its end.
    if (libc[call](socket.fd.number, address.address, sizeBytes - (isAbstract ? 1 : 0)) >= 0) return socket;
    const error = lastErrno();
    const isMissing = error === Errno.ENOENT || error === Errno.ECONNREFUSED;
    const cause = syscallError(call, path);
    socket[Symbol.dispose]();
    throw isMissing ? new PeerError(`nobody takes datagrams at ${path}`, { reconnect: true, cause }) : cause;
  }

  /** Sends one datagram; waits for so long when the other side takes none. Returns whether it took it. @throws SyscallError when it is gone */
  send(text: string, timeoutMs = 1_000): boolean {
    const bytes = new TextEncoder().encode(text);
    const buffer = new NativeBuffer(bytes.length);
    buffer.bytes.set(bytes);
    const deadline = new Deadline(timeoutMs);
    while (writeSome(this.fd, buffer, 0, bytes.length) === "would-block") {
      if (waitReadySync(this.fd, POLL.OUT, deadline) === 0) return false;
    }
    return true;
  }

  /** The next datagram that has come; undefined where there is none. */
  receive(): string | undefined {
    const buffer = new NativeBuffer(MAX_DATAGRAM_BYTES);
    const count = readSome(this.fd, buffer);
    return count === "would-block" ? undefined : new TextDecoder().decode(buffer.bytes.subarray(0, count));
  }

  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}
