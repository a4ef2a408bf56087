import { dlopen, type FFIFunction } from "bun:ffi";
import { SyscallError } from "../errors.ts";
import { POLL, SYS } from "./constants.ts";
import { Errno, lastErrno, syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { pollNow } from "./poll.ts";

// Variadic in C; fixed integer arguments use the same registers on x86_64 and aarch64.
const { syscall } = dlopen("libc.so.6", {
  syscall: {
    args: ["i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast"],
    returns: "i32",
  } as unknown as FFIFunction,
}).symbols as unknown as { syscall: (...args: number[]) => number };

// struct iocb (include/uapi/linux/aio_abi.h): a read of no bytes (opcode 0) that signals `resfd` when it is done.
const IOCB = { fildes: 20, flags: 56, resfd: 60, sizeBytes: 64 } as const;
const IOCB_FLAG_RESFD = 1;
const EVENT_BYTES = 32;
/** Asked for of the kernel, and counted against fs.aio-max-nr. It makes room for a page of completions all the same. */
const CONTEXT_EVENTS = 1;
/** Completions taken at once: a page's worth. */
const REAPED_EVENTS = 128;

const iocb = new NativeBuffer(IOCB.sizeBytes);
iocb.view.setUint32(IOCB.flags, IOCB_FLAG_RESFD, true);
const list = new NativeBuffer(8);
list.setPointer(0, iocb.address);
const completions = new NativeBuffer(REAPED_EVENTS * EVENT_BYTES);
const one = new NativeBuffer(8);
one.view.setUint32(0, 1, true);

/** This thread's AIO context; undefined where the kernel gives none (compiled without it, fs.aio-max-nr). */
const createContext = (): number | undefined => {
  const id = new NativeBuffer(8);
  if (syscall(SYS.io_setup, CONTEXT_EVENTS, id.address, 0, 0, 0) < 0) return undefined;
  return id.view.getUint32(0, true) + id.view.getUint32(4, true) * 2 ** 32;
};

let context: { readonly id: number | undefined } | undefined;

/**
 * Adds one to an eventfd without ever blocking, whatever its flags are and whatever a peer does with it at this moment.
 *
 * write(2) cannot promise that: an eventfd knows no RWF_NOWAIT for it (EOPNOTSUPP, 6.18), and between a poll and the write a
 * peer can fill the counter. The kernel's own signal can: it saturates. A read of no bytes by Linux AIO, which fails at once
 * and completes with that signal, costs one system call (610 ns against 297 for a write, measured).
 *
 * @returns false where the counter is full, and there is no AIO: then poll asks first, and the race remains
 * @throws SyscallError when it is no eventfd
 */
export function signalEventFd(fd: Fd): boolean {
  context ??= { id: createContext() };
  const { id } = context;
  if (id === undefined) return writeAfterPoll(fd);
  iocb.view.setUint32(IOCB.fildes, fd.number, true);
  iocb.view.setUint32(IOCB.resfd, fd.number, true);
  for (;;) {
    if (syscall(SYS.io_submit, id, 1, list.address, 0, 0) === 1) return true;
    const error = lastErrno();
    if (error === Errno.EINVAL) {
      throw new SyscallError("io_submit", "EINVAL", `${fd.label} is neither an eventfd, a pipe nor a socket`);
    }
    // The page of completions is full. Nobody looks at them.
    const isFull = error === Errno.EAGAIN;
    if (!isFull || syscall(SYS.io_getevents, id, 0, REAPED_EVENTS, completions.address, 0) <= 0) {
      throw syscallError("io_submit", fd.label);
    }
  }
}

function writeAfterPoll(fd: Fd): boolean {
  for (;;) {
    if ((pollNow(fd, POLL.OUT) & POLL.OUT) === 0) return false;
    if (libc.write(fd.number, one.address, 8) >= 0) return true;
    const error = lastErrno();
    if (error === Errno.EAGAIN) return false;
    if (error !== Errno.EINTR) throw syscallError("write", fd.label);
  }
}
