import { Errno, lastErrno, syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

/** include/uapi/asm-generic/fcntl.h; the same on x86_64 and aarch64. */
const F_OFD = { GETLK: 36, SETLK: 37 } as const;
const LOCK_TYPE = { read: 0, write: 1, none: 2 } as const;
export type LockKind = keyof typeof LOCK_TYPE;

/** struct flock: i16 type, i16 whence (0: from the start), i64 start at 8, i64 length at 16, i32 pid at 24. */
const FLOCK_BYTES = 32;
const FLOCK = { type: 0, start: 8, length: 16 } as const;

/**
 * Locks bytes of a file for its open file description, or with "none" unlocks them. All duplicates of the fd share the lock;
 * it ends with the last of them. Returns false when another holds one that excludes it. It never waits.
 *
 * @throws SyscallError where the file system has no locks, or the fd lacks the right
 */
export function lockBytes(fd: Fd, kind: LockKind, start: number, sizeBytes: number): boolean {
  const lock = flockOf(kind, start, sizeBytes);
  if (libc.fcntl(fd.number, F_OFD.SETLK, lock.address) === 0) return true;
  if (lastErrno() === Errno.EAGAIN) return false;
  throw syscallError("fcntl(F_OFD_SETLK)", fd.label);
}

/** True when nobody else has a lock on these bytes, not even for reading. @throws SyscallError */
export function hasNoLock(fd: Fd, start: number, sizeBytes: number): boolean {
  const lock = flockOf("write", start, sizeBytes);
  if (libc.fcntl(fd.number, F_OFD.GETLK, lock.address) !== 0)
    throw syscallError("fcntl(F_OFD_GETLK)", fd.label);
  return lock.view.getInt16(FLOCK.type, true) === LOCK_TYPE.none;
}

function flockOf(kind: LockKind, start: number, sizeBytes: number): NativeBuffer {
  const lock = new NativeBuffer(FLOCK_BYTES);
  lock.view.setInt16(FLOCK.type, LOCK_TYPE[kind], true);
  lock.setPointer(FLOCK.start, start);
  lock.setPointer(FLOCK.length, sizeBytes);
  return lock;
}
