import assert from "node:assert/strict";
import { PeerError } from "../errors.ts";
import { MAX_MESSAGE_FDS } from "../limits.ts";
import { AF_UNIX, MSG, SCM_RIGHTS, SHUT, SO, SOCK, SOL_SOCKET } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { disposeAll, Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

// struct msghdr on 64-bit Linux: name, namelen, iov, iovlen, control, controllen, flags.
const MSGHDR = { iov: 16, iovlen: 24, control: 32, controllen: 40, flags: 48, sizeBytes: 56 } as const;
const CMSG_HEADER_BYTES = 16;
// CMSG_SPACE rounds each control message up to 8 bytes.
const CONTROL_BYTES = CMSG_HEADER_BYTES + Math.ceil((MAX_MESSAGE_FDS * 4) / 8) * 8;

class MessageHeader {
  readonly block = new NativeBuffer(MSGHDR.sizeBytes + 16 + CONTROL_BYTES);
  readonly controlOffset = MSGHDR.sizeBytes + 16;

  constructor() {
    const { block } = this;
    block.setPointer(MSGHDR.iov, block.address + MSGHDR.sizeBytes);
    block.setPointer(MSGHDR.iovlen, 1);
    block.setPointer(MSGHDR.control, block.address + this.controlOffset);
  }

  point(address: number, sizeBytes: number, controlBytes: number): void {
    this.block.setPointer(MSGHDR.sizeBytes, address);
    this.block.setPointer(MSGHDR.sizeBytes + 8, sizeBytes);
    this.block.setPointer(MSGHDR.controllen, controlBytes);
    this.block.view.setInt32(MSGHDR.flags, 0, true);
  }
}

/** What `receive` says instead of a byte count. */
export const WOULD_BLOCK = -1;

/** A connected UNIX stream socket that carries file descriptors. Owns its fd. */
export class UnixSocket implements Disposable {
  readonly #sending = new MessageHeader();
  readonly #receiving = new MessageHeader();
  #receiveTimeoutMs = 0;
  #sendTimeoutMs = 0;

  constructor(readonly fd: Fd) {}

  /** Two connected sockets. */
  static pair(): [UnixSocket, UnixSocket] {
    const numbers = new NativeBuffer(8);
    check(libc.socketpair(AF_UNIX, SOCK.STREAM | SOCK.CLOEXEC, 0, numbers.address), "socketpair", "");
    const [a, b] = [numbers.view.getInt32(0, true), numbers.view.getInt32(4, true)];
    return [
      new UnixSocket(new Fd(a, "socket pair, first")),
      new UnixSocket(new Fd(b, "socket pair, second")),
    ];
  }

  /** How long one blocking receive or send may wait in the kernel. 0 waits for ever. */
  setTimeouts(timeouts: { receiveMs?: number; sendMs?: number }): void {
    const { receiveMs, sendMs } = timeouts;
    if (receiveMs !== undefined && receiveMs !== this.#receiveTimeoutMs) {
      this.#setTimeout(SO.RCVTIMEO, receiveMs);
      this.#receiveTimeoutMs = receiveMs;
    }
    if (sendMs !== undefined && sendMs !== this.#sendTimeoutMs) {
      this.#setTimeout(SO.SNDTIMEO, sendMs);
      this.#sendTimeoutMs = sendMs;
    }
  }

  /**
   * One sendmsg of bytes `offset` to `offset + sizeBytes` of `buffer`; the fds ride on the first byte.
   * Returns the bytes taken, WOULD_BLOCK when the timeout is over (or at once with `dontWait`).
   * @throws PeerError when the peer has hung up
   */
  send(
    buffer: NativeBuffer,
    offset: number,
    sizeBytes: number,
    fds: readonly Fd[] = [],
    dontWait = false,
  ): number {
    assert(sizeBytes > 0 && fds.length <= MAX_MESSAGE_FDS);
    const header = this.#sending;
    header.point(buffer.address + offset, sizeBytes, this.#packFds(fds));
    const flags = MSG.NOSIGNAL | (dontWait ? MSG.DONTWAIT : 0);
    for (;;) {
      const sent = libc.sendmsg(this.fd.number, header.block.address, flags);
      if (sent >= 0) return Number(sent);
      const error = lastErrno();
      if (error === Errno.EAGAIN) return WOULD_BLOCK;
      if (error === Errno.EPIPE || error === Errno.ECONNRESET) throw hungUp(this.fd);
      if (error !== Errno.EINTR) throw syscallError("sendmsg", this.fd.label, { sizeBytes, fds: fds.length });
    }
  }

  /**
   * One recvmsg of up to `sizeBytes` bytes; fds that arrive with them are pushed to `fds`, owned by the caller.
   * Returns the bytes, 0 at the end of the stream, WOULD_BLOCK when the timeout is over (or at once with `dontWait`).
   * @throws PeerError when fds were cut off because more came than anyone may send
   */
  receive(buffer: NativeBuffer, offset: number, sizeBytes: number, fds: Fd[], dontWait = false): number {
    const header = this.#receiving;
    const flags = MSG.CMSG_CLOEXEC | (dontWait ? MSG.DONTWAIT : 0);
    for (;;) {
      header.point(buffer.address + offset, sizeBytes, CONTROL_BYTES);
      const received = libc.recvmsg(this.fd.number, header.block.address, flags);
      if (received >= 0) {
        this.#unpackFds(fds);
        return Number(received);
      }
      const error = lastErrno();
      if (error === Errno.EAGAIN) return WOULD_BLOCK;
      if (error === Errno.ECONNRESET) return 0;
      if (error !== Errno.EINTR) throw syscallError("recvmsg", this.fd.label);
    }
  }

  /** Process, user and group of whoever connected or listened (SO_PEERCRED). */
  peerCredentials(): { pid: number; uid: number; gid: number } {
    const out = new NativeBuffer(16);
    const length = new NativeBuffer(4);
    length.view.setUint32(0, 12, true);
    const result = libc.getsockopt(this.fd.number, SOL_SOCKET, SO.PEERCRED, out.address, length.address);
    check(result, "getsockopt(SO_PEERCRED)", this.fd.label);
    const { view } = out;
    return { pid: view.getInt32(0, true), uid: view.getUint32(4, true), gid: view.getUint32(8, true) };
  }

  /** Ends both directions: whoever waits on either end wakes up with the end of the stream. */
  shutdown(): void {
    libc.shutdown(this.fd.number, SHUT.RDWR);
  }

  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }

  #setTimeout(option: number, timeoutMs: number): void {
    const timeval = new NativeBuffer(16);
    timeval.setPointer(0, Math.floor(timeoutMs / 1000));
    timeval.setPointer(8, Math.ceil((timeoutMs % 1000) * 1000));
    check(
      libc.setsockopt(this.fd.number, SOL_SOCKET, option, timeval.address, 16),
      "setsockopt",
      this.fd.label,
    );
  }

  #packFds(fds: readonly Fd[]): number {
    if (fds.length === 0) return 0;
    const { block, controlOffset } = this.#sending;
    const sizeBytes = CMSG_HEADER_BYTES + fds.length * 4;
    block.setPointer(controlOffset, sizeBytes);
    block.view.setInt32(controlOffset + 8, SOL_SOCKET, true);
    block.view.setInt32(controlOffset + 12, SCM_RIGHTS, true);
    let offset = controlOffset + CMSG_HEADER_BYTES;
    for (const fd of fds) {
      block.view.setInt32(offset, fd.number, true);
      offset += 4;
    }
    return CMSG_HEADER_BYTES + Math.ceil((fds.length * 4) / 8) * 8;
  }

  #unpackFds(fds: Fd[]): void {
    const { block, controlOffset } = this.#receiving;
    const { view } = block;
    const controlBytes = view.getUint32(MSGHDR.controllen, true);
    const before = fds.length;
    if (controlBytes >= CMSG_HEADER_BYTES) {
      const isRights =
        view.getInt32(controlOffset + 8, true) === SOL_SOCKET &&
        view.getInt32(controlOffset + 12, true) === SCM_RIGHTS;
      const dataBytes = isRights ? view.getUint32(controlOffset, true) - CMSG_HEADER_BYTES : 0;
      for (let i = 0; i < dataBytes; i += 4) {
        fds.push(new Fd(view.getInt32(controlOffset + CMSG_HEADER_BYTES + i, true), "fd from peer"));
      }
    }
    if ((view.getInt32(MSGHDR.flags, true) & MSG.CTRUNC) === 0) return;
    disposeAll(fds.splice(before));
    throw new PeerError(`the peer sent more than ${MAX_MESSAGE_FDS} fds in one message; some were cut off`);
  }
}

function hungUp(fd: Fd): PeerError {
  return new PeerError(`the peer hung up (${fd.label})`, { reconnect: true });
}
