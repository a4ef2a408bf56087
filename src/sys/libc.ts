import { dlopen, type FFIFunction, type Pointer } from "bun:ffi";

/**
 * The C library's calls that vhu makes, and nothing else of it.
 *
 * Types: `i64_fast`/`u64_fast` give a number where it is exact and a BigInt beyond 2^53, which is cheaper than always
 * a BigInt (11-14 ns against 30, measured). Addresses travel as `u64_fast`: user addresses fit in 47 bits.
 * Variadic calls (fcntl, ioctl, syscall, open) are declared with fixed integer arguments, which is the same register
 * assignment on x86_64 (SysV) and aarch64 (AAPCS64 on Linux).
 */
const signatures = {
  __errno_location: { args: [], returns: "ptr" },
  accept4: { args: ["i32", "u64_fast", "u64_fast", "i32"], returns: "i32" },
  bind: { args: ["i32", "u64_fast", "u32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  copy_file_range: { args: ["i32", "u64_fast", "i32", "u64_fast", "u64_fast", "u32"], returns: "i64_fast" },
  connect: { args: ["i32", "u64_fast", "u32"], returns: "i32" },
  epoll_create1: { args: ["i32"], returns: "i32" },
  epoll_ctl: { args: ["i32", "i32", "i32", "u64_fast"], returns: "i32" },
  epoll_wait: { args: ["i32", "u64_fast", "i32", "i32"], returns: "i32" },
  eventfd: { args: ["u32", "i32"], returns: "i32" },
  fallocate: { args: ["i32", "i32", "i64_fast", "i64_fast"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i64_fast"], returns: "i32" },
  fdatasync: { args: ["i32"], returns: "i32" },
  fsync: { args: ["i32"], returns: "i32" },
  ftruncate: { args: ["i32", "i64_fast"], returns: "i32" },
  getsockopt: { args: ["i32", "i32", "i32", "u64_fast", "u64_fast"], returns: "i32" },
  ioctl: { args: ["i32", "u64_fast", "u64_fast"], returns: "i32" },
  listen: { args: ["i32", "i32"], returns: "i32" },
  lseek: { args: ["i32", "i64_fast", "i32"], returns: "i64_fast" },
  madvise: { args: ["u64_fast", "u64_fast", "i32"], returns: "i32" },
  memfd_create: { args: ["u64_fast", "u32"], returns: "i32" },
  mmap: { args: ["u64_fast", "u64_fast", "i32", "i32", "i32", "i64_fast"], returns: "u64_fast" },
  munmap: { args: ["u64_fast", "u64_fast"], returns: "i32" },
  open: { args: ["u64_fast", "i32", "u32"], returns: "i32" },
  pipe2: { args: ["u64_fast", "i32"], returns: "i32" },
  poll: { args: ["u64_fast", "u64_fast", "i32"], returns: "i32" },
  preadv: { args: ["i32", "u64_fast", "i32", "i64_fast"], returns: "i64_fast" },
  preadv2: { args: ["i32", "u64_fast", "i32", "i64_fast", "i32"], returns: "i64_fast" },
  pwritev: { args: ["i32", "u64_fast", "i32", "i64_fast"], returns: "i64_fast" },
  pwritev2: { args: ["i32", "u64_fast", "i32", "i64_fast", "i32"], returns: "i64_fast" },
  read: { args: ["i32", "u64_fast", "u64_fast"], returns: "i64_fast" },
  recvmsg: { args: ["i32", "u64_fast", "i32"], returns: "i64_fast" },
  sendmsg: { args: ["i32", "u64_fast", "i32"], returns: "i64_fast" },
  sched_yield: { args: [], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "u64_fast", "u32"], returns: "i32" },
  shutdown: { args: ["i32", "i32"], returns: "i32" },
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  socketpair: { args: ["i32", "i32", "i32", "u64_fast"], returns: "i32" },
  splice: { args: ["i32", "u64_fast", "i32", "u64_fast", "u64_fast", "u32"], returns: "i64_fast" },
  syscall: { args: ["i64_fast", "i64_fast", "i64_fast", "i64_fast"], returns: "i64_fast" },
  write: { args: ["i32", "u64_fast", "u64_fast"], returns: "i64_fast" },
} as const;

type Signatures = typeof signatures;
/** What a declared C type is in JavaScript. A `_fast` return is a BigInt only beyond 2^53. */
type Returned<T> = T extends "i32" ? number : T extends "ptr" ? Pointer : number | bigint;
type Arguments<T extends readonly unknown[]> = { [K in keyof T]: number };
type Calls = {
  readonly [Name in keyof Signatures]: (
    ...args: Arguments<Signatures[Name]["args"]>
  ) => Returned<Signatures[Name]["returns"]>;
};

/** The calls. Each returns what C returns; `check` (errno.ts) turns -1 into a SyscallError. */
export const libc = dlopen("libc.so.6", signatures as unknown as Record<string, FFIFunction>)
  .symbols as unknown as Calls;

/** Where this thread's errno lives. Every Worker evaluates this module anew, so the address is the thread's own. */
export const errnoAddress = libc.__errno_location();
