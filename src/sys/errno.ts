import { toArrayBuffer } from "bun:ffi";
import { constants } from "node:os";
import { type ErrorDetails, SyscallError } from "../errors.ts";
import { errnoAddress } from "./libc.ts";

// A view of the thread's errno. Read right after the call: any JavaScript call that enters the kernel clobbers it.
const errnoWord = new Int32Array(toArrayBuffer(errnoAddress, 0, 4));

const namesByNumber = new Map<number, string>(
  Object.entries(constants.errno).map(([name, number]) => [number, name]),
);

export const Errno = {
  EINTR: constants.errno.EINTR,
  EAGAIN: constants.errno.EAGAIN,
  EPIPE: constants.errno.EPIPE,
  ECONNRESET: constants.errno.ECONNRESET,
  ENXIO: constants.errno.ENXIO,
  EINVAL: constants.errno.EINVAL,
  ENOENT: constants.errno.ENOENT,
  ENOTDIR: constants.errno.ENOTDIR,
  EEXIST: constants.errno.EEXIST,
  ECONNREFUSED: constants.errno.ECONNREFUSED,
  EBADF: constants.errno.EBADF,
  EPERM: constants.errno.EPERM,
  ESRCH: constants.errno.ESRCH,
  EOPNOTSUPP: constants.errno.EOPNOTSUPP,
} as const;

/** The errno of the call that was made last in this thread. */
export function lastErrno(): number {
  return errnoWord[0]!;
}

/** "EAGAIN" for 11; "errno 523" for one without a name. */
export function errnoName(number: number): string {
  return namesByNumber.get(number) ?? `errno ${number}`;
}

/** A SyscallError for the call that has just failed. `what` names the object: a path, an fd's label. */
export function syscallError(call: string, what: string, details: ErrorDetails = {}): SyscallError {
  return new SyscallError(call, errnoName(lastErrno()), what, details);
}

/** Returns `result`, or throws the SyscallError of the call when it is negative. */
export function check(result: number | bigint, call: string, what: string, details?: ErrorDetails): number {
  if (result < 0) throw syscallError(call, what, details);
  return Number(result);
}

/** As `check`, but makes the call again for as long as a signal interrupts it. */
export function retrying(call: string, what: string, invoke: () => number | bigint): number {
  for (;;) {
    const result = invoke();
    if (result >= 0) return Number(result);
    if (lastErrno() !== Errno.EINTR) throw syscallError(call, what);
  }
}
