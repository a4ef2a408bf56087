import { dlopen, type FFIFunction } from "bun:ffi";
import { retrying } from "./errno.ts";
import { NativeBuffer } from "./native-buffer.ts";

const AT_FDCWD = -100;
const AT_SYMLINK_FOLLOW = 0x400;

const signatures = {
  linkat: { args: ["i32", "u64_fast", "i32", "u64_fast", "i32"], returns: "i32" },
} as const;

type Calls = { readonly linkat: (...args: number[]) => number };
let calls: Calls | undefined;

/**
 * Gives a file without a name (O_TMPFILE) one. An existing name is never replaced: EEXIST.
 *
 * By way of /proc, as open(2) describes under O_TMPFILE: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
 * @throws SyscallError
 */
export function linkFile(fdNumber: number, path: string): void {
  calls ??= dlopen("libc.so.6", signatures as unknown as Record<string, FFIFunction>)
    .symbols as unknown as Calls;
  const { linkat } = calls;
  const source = NativeBuffer.cString(`/proc/self/fd/${fdNumber}`);
  const target = NativeBuffer.cString(path);
  retrying("linkat", path, () =>
    linkat(AT_FDCWD, source.address, AT_FDCWD, target.address, AT_SYMLINK_FOLLOW),
  );
}
