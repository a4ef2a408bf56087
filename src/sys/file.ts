import { F, FALLOC, O, SEEK } from "./constants.ts";
import { check, Errno, errnoName, lastErrno, retrying, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import type { IoVector } from "./io-vector.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

/** include/uapi/linux/fs.h */
const RWF_NOWAIT = 8;

/** Opens a file. `flags` are O bits; CLOEXEC is always set. */
export function openFile(path: string, flags: number, mode = 0o600): Fd {
  const cPath = NativeBuffer.cString(path);
  const number = retrying("open", path, () => libc.open(cPath.address, flags | O.CLOEXEC, mode));
  return new Fd(number, path);
}

/** A file without a name in `folder`, gone when it is closed. */
export function openTemporaryFile(folder: string): Fd {
  return openFile(folder, O.TMPFILE | O.RDWR);
}

/**
 * Reads at `offset` into all pieces of `vector` (which it consumes). Returns the bytes read, less at the end of the file,
 * or the negative errno: the data path answers a guest with it and throws nothing.
 */
export function readAt(fd: Fd, vector: IoVector, offset: number): number {
  return transferAll(libc.preadv, fd, vector, offset);
}

/**
 * As `readAt`, in one try that never waits for a disk: -EAGAIN when not all of it is in the page cache or memory (or where the
 * file system cannot tell), or fewer bytes than asked for. `vector` is left as it was.
 */
export function readCachedAt(fd: Fd, vector: IoVector, offset: number): number {
  const count = Number(libc.preadv2(fd.number, vector.address, vector.count, offset, RWF_NOWAIT));
  return count < 0 ? -lastErrno() : count;
}

/** Writes all pieces of `vector` (which it consumes) at `offset`. Returns the bytes written or the negative errno. */
export function writeAt(fd: Fd, vector: IoVector, offset: number): number {
  return transferAll(libc.pwritev, fd, vector, offset);
}

function transferAll(call: typeof libc.preadv, fd: Fd, vector: IoVector, offset: number): number {
  let done = 0;
  while (vector.count > 0) {
    const moved = Number(call(fd.number, vector.address, vector.count, offset + done));
    if (moved > 0) {
      done += moved;
      vector.advance(moved);
    } else if (moved === 0) {
      return done;
    } else if (lastErrno() !== Errno.EINTR) {
      return -lastErrno();
    }
  }
  return done;
}

/** Makes the file's data durable. Returns 0 or the negative errno. */
export function syncData(fd: Fd): number {
  return libc.fdatasync(fd.number) < 0 ? -lastErrno() : 0;
}

/** Makes the file's data and metadata durable. */
export function syncFile(fd: Fd): void {
  retrying("fsync", fd.label, () => libc.fsync(fd.number));
}

export function truncateFile(fd: Fd, sizeBytes: number): void {
  retrying("ftruncate", fd.label, () => libc.ftruncate(fd.number, sizeBytes));
}

/** Gives the range back to the file system; it reads as zeros afterwards. Returns 0 or the negative errno. */
export function punchHole(fd: Fd, offset: number, sizeBytes: number): number {
  return allocateRange(fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, offset, sizeBytes);
}

/** fallocate(2). @param mode FALLOC bits. Returns 0 or the negative errno. */
export function allocateRange(fd: Fd, mode: number, offset: number, sizeBytes: number): number {
  for (;;) {
    if (libc.fallocate(fd.number, mode, offset, sizeBytes) === 0) return 0;
    if (lastErrno() !== Errno.EINTR) return -lastErrno();
  }
}

/** Size of a file or block device: the offset of its end. */
export function sizeOf(fd: Fd): number {
  return check(libc.lseek(fd.number, 0, SEEK.END), "lseek(SEEK_END)", fd.label);
}

export function setNonBlocking(fd: Fd): void {
  const flags = check(libc.fcntl(fd.number, F.GETFL, 0), "fcntl(F_GETFL)", fd.label);
  check(libc.fcntl(fd.number, F.SETFL, flags | O.NONBLOCK), "fcntl(F_SETFL)", fd.label);
}

/**
 * The parts of a file or memfd that hold data, in order; what lies between is holes. Found by SEEK_DATA and SEEK_HOLE,
 * never by touching: looking at a memfd's hole through a mapping allocates it (measured).
 */
export function* dataRanges(fd: Fd, sizeBytes: number): Generator<{ offset: number; sizeBytes: number }> {
  let position = 0;
  while (position < sizeBytes) {
    const start = libc.lseek(fd.number, position, SEEK.DATA);
    if (start < 0) {
      if (lastErrno() === Errno.ENXIO) return;
      throw syscallError("lseek(SEEK_DATA)", fd.label);
    }
    const end = check(libc.lseek(fd.number, start as number, SEEK.HOLE), "lseek(SEEK_HOLE)", fd.label);
    const first = Number(start);
    if (first >= sizeBytes) return;
    yield { offset: first, sizeBytes: Math.min(end, sizeBytes) - first };
    position = end;
  }
}

/**
 * One read(2) into `buffer`. Returns the bytes, 0 at the end, "would-block" on a non-blocking fd with nothing there.
 */
export function readSome(
  fd: Fd,
  buffer: NativeBuffer,
  offset = 0,
  sizeBytes = buffer.sizeBytes,
): number | "would-block" {
  return transferSome(libc.read, "read", fd, buffer.address + offset, sizeBytes);
}

/** One write(2) from `buffer`. Returns the bytes taken, "would-block" on a non-blocking fd that is full. */
export function writeSome(
  fd: Fd,
  buffer: NativeBuffer,
  offset: number,
  sizeBytes: number,
): number | "would-block" {
  return transferSome(libc.write, "write", fd, buffer.address + offset, sizeBytes);
}

function transferSome(
  call: typeof libc.read,
  name: string,
  fd: Fd,
  address: number,
  sizeBytes: number,
): number | "would-block" {
  for (;;) {
    const moved = call(fd.number, address, sizeBytes);
    if (moved >= 0) return Number(moved);
    const error = lastErrno();
    if (error === Errno.EAGAIN) return "would-block";
    if (error !== Errno.EINTR) throw syscallError(name, fd.label, { errnoName: errnoName(error) });
  }
}
