import { dlopen, type FFIFunction } from "bun:ffi";
import { IO_URING_SYS } from "./io-uring-abi.ts";

// syscall(2) is variadic: fixed integer arguments use the same registers on x86_64 and aarch64. io_uring_enter needs six.
const signature = {
  args: ["i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast", "u64_fast", "u64_fast"],
  returns: "i32",
};
const { syscall } = dlopen("libc.so.6", {
  syscall: signature as unknown as FFIFunction,
}).symbols as unknown as { syscall: (...args: number[]) => number };

/** Each returns what the kernel returns, or -1 with errno set. */
export const ioUringSetup = (entries: number, params: number): number =>
  syscall(IO_URING_SYS.setup, entries, params, 0, 0, 0, 0);

export const ioUringEnter = (
  fd: number,
  toSubmit: number,
  minComplete: number,
  flags: number,
  argument: number,
  argumentBytes: number,
): number => syscall(IO_URING_SYS.enter, fd, toSubmit, minComplete, flags, argument, argumentBytes);

export const ioUringRegister = (fd: number, operation: number, argument: number, count: number): number =>
  syscall(IO_URING_SYS.register, fd, operation, argument, count, 0, 0);
