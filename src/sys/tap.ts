import { UsageError } from "../errors.ts";
import { O, SYS } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { openFile, setNonBlocking } from "./file.ts";
import type { IoVector } from "./io-vector.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

// include/uapi/linux/if_tun.h. The numbers are those of asm-generic/ioctl.h, as x86_64 and arm64 use it.
const TUNSETIFF = 0x4004_54ca;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNGETIFF = 0x8004_54d2;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const TUNSETQUEUE = 0x4004_54d9;
const IFF = {
  TAP: 0x2,
  MULTI_QUEUE: 0x100,
  ATTACH_QUEUE: 0x200,
  DETACH_QUEUE: 0x400,
  NO_PI: 0x1000,
  VNET_HDR: 0x4000,
} as const;
/** struct ifreq: a name of 16 bytes, NUL included, and a union of 24 bytes that begins with the flags. */
const IFREQ_BYTES = 40;
const NAME_BYTES = 16;

/** What the reader of a tap takes besides plain frames (TUNSETOFFLOAD). USO4 and USO6 go together only. */
export const TUN_F = { CSUM: 0x1, TSO4: 0x2, TSO6: 0x4, USO4: 0x20, USO6: 0x40 } as const;

/** What `read` and `write` say instead of a byte count. */
export const TAP_WOULD_BLOCK = -1;

/** One queue of a tap interface: every read and write is one frame. Owns its fd. */
export class Tap implements Disposable {
  private constructor(
    readonly fd: Fd,
    /** The interface's name, in the network namespace that it was made in. */
    readonly name: string,
    /** Frames begin with a virtio-net header. */
    readonly hasVnetHeader: boolean,
    readonly isMultiQueue: boolean,
  ) {}

  /**
   * Attaches to the tap interface `name` of this network namespace. One that is not there is made, and goes away with
   * its last queue; it is down until someone sets it up. "%d" in the name stands for the next free number.
   *
   * @param queues queues to open; more than one needs an interface that is not there yet, or was made with multi_queue
   * @throws UsageError for an impossible name, SyscallError: EPERM without CAP_NET_ADMIN, EBUSY when it is taken
   */
  static open(name: string, queues = 1): Tap[] {
    if (!/^[^\s/\0]+$/.test(name) || Buffer.byteLength(name) >= NAME_BYTES) {
      throw new UsageError(`"${name}" is no name of a network interface (1 to ${NAME_BYTES - 1} bytes)`);
    }
    using stack = new DisposableStack();
    const taps: Tap[] = [];
    // The first queue settles the name, where it was a pattern.
    while (taps.length < queues) taps.push(stack.use(Tap.#attach(taps[0]?.name ?? name, queues > 1)));
    stack.move();
    return taps;
  }

  /**
   * A queue that someone else opened, e.g. libvirt. Takes the fd.
   * @throws UsageError when it is no tap, or passes a packet information header
   */
  static fromFd(fd: Fd): Tap {
    const request = new NativeBuffer(IFREQ_BYTES);
    if (libc.ioctl(fd.number, TUNGETIFF, request.address) < 0) {
      const cause = syscallError("ioctl(TUNGETIFF)", fd.label);
      fd[Symbol.dispose]();
      throw new UsageError(`${fd.label} is no tap`, { cause });
    }
    const flags = request.view.getUint16(NAME_BYTES, true);
    if ((flags & IFF.TAP) === 0 || (flags & IFF.NO_PI) === 0) {
      fd[Symbol.dispose]();
      throw new UsageError(`${fd.label} is no tap with IFF_NO_PI (its flags are 0x${flags.toString(16)})`);
    }
    setNonBlocking(fd);
    const nameEnd = request.bytes.indexOf(0);
    const name = new TextDecoder().decode(request.bytes.subarray(0, nameEnd));
    return new Tap(fd, name, (flags & IFF.VNET_HDR) !== 0, (flags & IFF.MULTI_QUEUE) !== 0);
  }

  static #attach(name: string, multiQueue: boolean): Tap {
    const fd = openFile("/dev/net/tun", O.RDWR | O.NONBLOCK);
    try {
      const request = new NativeBuffer(IFREQ_BYTES);
      new TextEncoder().encodeInto(name, request.bytes);
      const flags = IFF.TAP | IFF.NO_PI | IFF.VNET_HDR | (multiQueue ? IFF.MULTI_QUEUE : 0);
      request.view.setUint16(NAME_BYTES, flags, true);
      check(libc.ioctl(fd.number, TUNSETIFF, request.address), "ioctl(TUNSETIFF)", name);
      // A label of its own, for the list of what a test forgot to close.
      return Tap.fromFd(new Fd(fd.take(), `tap ${name}`));
    } catch (error) {
      fd[Symbol.dispose]();
      throw error;
    }
  }

  /** Says how long the virtio-net header is. */
  setVnetHeaderBytes(sizeBytes: number): void {
    const value = new NativeBuffer(4);
    value.view.setInt32(0, sizeBytes, true);
    check(
      libc.ioctl(this.fd.number, TUNSETVNETHDRSZ, value.address),
      "ioctl(TUNSETVNETHDRSZ)",
      this.fd.label,
    );
  }

  /** Says what may be read besides plain frames: a mask of TUN_F. False when this kernel cannot do that. */
  setOffload(mask: number): boolean {
    if (libc.ioctl(this.fd.number, TUNSETOFFLOAD, mask) >= 0) return true;
    if (lastErrno() === Errno.EINVAL) return false;
    throw syscallError("ioctl(TUNSETOFFLOAD)", this.fd.label);
  }

  /** Takes this queue out of the interface, or back in: the kernel spreads frames over the attached ones. */
  setAttached(attached: boolean): void {
    const request = new NativeBuffer(IFREQ_BYTES);
    request.view.setUint16(NAME_BYTES, attached ? IFF.ATTACH_QUEUE : IFF.DETACH_QUEUE, true);
    check(libc.ioctl(this.fd.number, TUNSETQUEUE, request.address), "ioctl(TUNSETQUEUE)", this.fd.label);
  }

  /** Reads one frame. What does not fit into the pieces is lost. Its size, or TAP_WOULD_BLOCK. */
  read(into: IoVector): number {
    return this.#transfer(SYS.readv, "readv", into);
  }

  /** Writes one frame. Its size, or TAP_WOULD_BLOCK. @throws SyscallError EIO while the interface is down, EINVAL for a bad header */
  write(from: IoVector): number {
    return this.#transfer(SYS.writev, "writev", from);
  }

  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }

  #transfer(call: number, name: string, vector: IoVector): number {
    for (;;) {
      const moved = libc.syscall(call, this.fd.number, vector.address, vector.count);
      if (moved >= 0) return Number(moved);
      const error = lastErrno();
      if (error === Errno.EAGAIN) return TAP_WOULD_BLOCK;
      if (error !== Errno.EINTR) throw syscallError(name, this.fd.label);
    }
  }
}
