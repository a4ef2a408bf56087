import { existsSync, lstatSync, unlinkSync } from "node:fs";
import { PeerError, UsageError } from "../errors.ts";
import { AF_UNIX, POLL, SO, SOCK, SOL_SOCKET } from "./constants.ts";
import type { Deadline } from "./deadline.ts";
import { check, Errno, lastErrno, retrying, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { waitReadySync } from "./poll.ts";
import { UnixSocket } from "./unix-socket.ts";
import { socketsAt } from "./unix-sockets.ts";

// struct sockaddr_un: u16 family, 108 bytes of path, NUL included.
const MAX_PATH_BYTES = 107;

/** struct sockaddr_un of a path, with its NUL. @throws UsageError for one that does not fit */
export function socketAddress(path: string): { address: NativeBuffer; sizeBytes: number } {
  const encoded = new TextEncoder().encode(path);
  if (encoded.length === 0 || encoded.length > MAX_PATH_BYTES) {
    throw new UsageError(
      `a socket path has 1 to ${MAX_PATH_BYTES} bytes, this one has ${encoded.length}: ${path}`,
    );
  }
  const address = new NativeBuffer(2 + encoded.length + 1);
  address.view.setUint16(0, AF_UNIX, true);
  address.bytes.set(encoded, 2);
  return { address, sizeBytes: address.sizeBytes };
}

function newSocket(label: string): Fd {
  return new Fd(check(libc.socket(AF_UNIX, SOCK.STREAM | SOCK.CLOEXEC, 0), "socket", label), label);
}

/**
 * Connects to a UNIX socket.
 * @throws PeerError { reconnect: true } when nobody listens there
 */
export function connectUnix(path: string, timeoutMs = 5_000): UnixSocket {
  const { address, sizeBytes } = socketAddress(path);
  const socket = new UnixSocket(newSocket(`connection to ${path}`));
  try {
    socket.setTimeouts({ sendMs: timeoutMs });
    while (libc.connect(socket.fd.number, address.address, sizeBytes) < 0) {
      const error = lastErrno();
      if (error === Errno.EINTR) continue;
      const cause = syscallError("connect", path);
      if (error === Errno.ENOENT) {
        throw new PeerError(`no socket at ${path}; is the back-end running?`, { reconnect: true, cause });
      }
      if (error === Errno.ECONNREFUSED || error === Errno.EAGAIN) {
        throw new PeerError(`nobody accepts connections at ${path}`, { reconnect: true, cause });
      }
      throw cause;
    }
    return socket;
  } catch (error) {
    socket[Symbol.dispose]();
    throw error;
  }
}

/** A UNIX socket that listens: at a path, whose file has mode 0600 and is removed on dispose, or as another made it. */
export class UnixListener implements Disposable {
  private constructor(
    readonly fd: Fd,
    readonly path: string | undefined,
  ) {}

  /** Takes a socket that listens already; whoever bound it owns its file. */
  static ofFd(fd: Fd): UnixListener {
    return new UnixListener(fd, undefined);
  }

  /**
   * Listens at `path`. A socket file that nobody listens on any more is replaced; a live one is not.
   * Who listens is asked of the kernel: connecting would end a one-shot daemon (tried with virtiofsd).
   * @throws UsageError when the path is taken
   */
  static listen(path: string, backlog = 16): UnixListener {
    const { address, sizeBytes } = socketAddress(path);
    removeStaleSocket(path);
    const fd = newSocket(`listener at ${path}`);
    const umask = process.umask(0o177);
    try {
      check(libc.bind(fd.number, address.address, sizeBytes), "bind", path);
      check(libc.listen(fd.number, backlog), "listen", path);
      return new UnixListener(fd, path);
    } catch (error) {
      fd[Symbol.dispose]();
      throw error;
    } finally {
      process.umask(umask);
    }
  }

  /** Listens at a name that no file stands for: of this network namespace, and anybody in it may connect. */
  static abstract(name: string, backlog = 16): UnixListener {
    const label = `abstract socket ${name}`;
    const encoded = new TextEncoder().encode(`\0${name}`);
    const address = new NativeBuffer(2 + encoded.length);
    address.view.setUint16(0, AF_UNIX, true);
    address.bytes.set(encoded, 2);
    const fd = newSocket(label);
    try {
      check(libc.bind(fd.number, address.address, address.sizeBytes), "bind", label);
      check(libc.listen(fd.number, backlog), "listen", label);
      return new UnixListener(fd, undefined);
    } catch (error) {
      fd[Symbol.dispose]();
      throw error;
    }
  }

  /** The next connection. Waits in line. */
  accept(): UnixSocket {
    const { fd, path = this.fd.label } = this;
    const number = retrying("accept4", path, () => libc.accept4(fd.number, 0, 0, SOCK.CLOEXEC));
    return new UnixSocket(new Fd(number, `connection at ${path}`));
  }

  /** The next connection, or undefined when none came by the deadline. */
  acceptBefore(deadline: Deadline): UnixSocket | undefined {
    return waitReadySync(this.fd, POLL.IN, deadline) === 0 ? undefined : this.accept();
  }

  [Symbol.dispose](): void {
    if (!this.fd.isOpen) return;
    this.fd[Symbol.dispose]();
    if (this.path !== undefined && existsSync(this.path)) unlinkSync(this.path);
  }
}

function removeStaleSocket(path: string): void {
  const file = lstatSync(path, { throwIfNoEntry: false });
  if (file === undefined) return;
  if (!file.isSocket()) throw new UsageError(`${path} exists and is not a socket; choose another path`);
  if (isListening(path))
    throw new UsageError(`another process listens at ${path}; end it or choose another path`);
  unlinkSync(path);
}

function isListening(path: string): boolean {
  return socketsAt(path).some(({ isListening }) => isListening);
}

/** The size of the socket's receive and send buffers that the kernel should try to have. */
export function setBufferSizes(socket: UnixSocket, sizeBytes: number): void {
  const value = new NativeBuffer(4);
  value.view.setInt32(0, sizeBytes, true);
  for (const option of [SO.SNDBUF, SO.RCVBUF]) {
    check(
      libc.setsockopt(socket.fd.number, SOL_SOCKET, option, value.address, 4),
      "setsockopt",
      socket.fd.label,
    );
  }
}
