import { readlinkSync } from "node:fs";
import { F } from "./constants.ts";
import { check, syscallError } from "./errno.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { processCalls } from "./process-calls.ts";

// include/uapi/linux/prctl.h
const PR_SET_NO_NEW_PRIVS = 38;
const PR_GET_SECCOMP = 21;

/** include/uapi/asm-generic/resource.h, the same on x86_64 and aarch64. */
export const RLIMIT = { CORE: 4, NOFILE: 7 } as const;

/** Lets another thread of this processor run, where one waits for it. About 0.3 us where none does. */
export function yieldProcessor(): void {
  libc.sched_yield();
}

/** Set-user-ID programs and file capabilities give this thread, and what it becomes, nothing any more. */
export function forbidNewPrivileges(): void {
  check(processCalls.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)", "");
}

/** Whether the kernel has seccomp. */
export function hasSeccomp(): boolean {
  return processCalls.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
}

/** Sets a resource limit, soft and hard, to `most`, or to what it was where that is less. */
export function limitResource(resource: number, most: number): void {
  // struct rlimit: u64 current, u64 maximum; RLIM_INFINITY is all ones.
  const limit = new NativeBuffer(16);
  check(processCalls.getrlimit(resource, limit.address), "getrlimit", `${resource}`);
  const hard = limit.view.getBigUint64(8, true);
  const value = hard < BigInt(most) ? Number(hard) : most;
  limit.setPointer(0, value);
  limit.setPointer(8, value);
  check(processCalls.setrlimit(resource, limit.address), "setrlimit", `${resource}`);
}

/** Lets a program that this process becomes or starts have the fd. @throws SyscallError EBADF */
export function keepAcrossExec(number: number): void {
  check(libc.fcntl(number, F.SETFD, 0), "fcntl(F_SETFD)", `fd ${number}`);
}

/**
 * Becomes another program: same process, same fds but those with CLOEXEC, all threads gone. Must be called by the main thread.
 * @throws SyscallError when it cannot be started; else it does not return
 */
export function replaceProcess(
  path: string,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): never {
  const program = NativeBuffer.cString(path);
  const variables = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const [args, env] = [cStrings(argv), cStrings(variables)];
  processCalls.execve(program.address, args.table.address, env.table.address);
  throw syscallError("execve", path, { arguments: args.strings.length, variables: env.strings.length });
}

/** A NULL-terminated table of C strings. The strings are kept alive by being returned. */
function cStrings(texts: readonly string[]): { table: NativeBuffer; strings: readonly NativeBuffer[] } {
  const strings = texts.map((text) => NativeBuffer.cString(text));
  const table = new NativeBuffer((strings.length + 1) * 8);
  for (const [index, { address }] of strings.entries()) table.setPointer(index * 8, address);
  return { table, strings };
}

/** The program that a process runs; undefined for another user's process, or one that is gone. */
export function executableOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    return undefined;
  }
}
