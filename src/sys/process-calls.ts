import { dlopen, type FFIFunction } from "bun:ffi";

/** Calls that change the process as a whole, for a program that confines itself. */
const signatures = {
  execve: { args: ["u64_fast", "u64_fast", "u64_fast"], returns: "i32" },
  getrlimit: { args: ["i32", "u64_fast"], returns: "i32" },
  // Variadic calls with fixed integer arguments: the same registers on x86_64 and aarch64.
  prctl: { args: ["i32", "i64_fast", "i64_fast", "i64_fast", "i64_fast"], returns: "i32" },
  setrlimit: { args: ["i32", "u64_fast"], returns: "i32" },
  syscall: { args: ["i64_fast", "i64_fast", "i64_fast", "i64_fast", "i64_fast"], returns: "i64_fast" },
} as const;

type Calls = { readonly [Name in keyof typeof signatures]: (...args: number[]) => number };

export const processCalls = dlopen("libc.so.6", signatures as unknown as Record<string, FFIFunction>)
  .symbols as unknown as Calls;
