import { dlopen, type FFIFunction } from "bun:ffi";

const signatures = { memcmp: { args: ["u64_fast", "u64_fast", "u64_fast"], returns: "i32" } } as const;

type Calls = { readonly memcmp: (...args: number[]) => number };
let calls: Calls | undefined;

/** True when both ranges hold the same bytes. They are addresses of memory that stays mapped during the call. */
export function isSameMemory(address: number, other: number, sizeBytes: number): boolean {
  calls ??= dlopen("libc.so.6", signatures as unknown as Record<string, FFIFunction>)
    .symbols as unknown as Calls;
  return calls.memcmp(address, other, sizeBytes) === 0;
}
