import { SyscallError } from "../errors.ts";
import { errnoName, lastErrno, syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { punchHole, readAt, writeAt } from "./file.ts";
import { IoVector } from "./io-vector.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

/** _IOW(0x94, 9, int), include/uapi/linux/fs.h. */
const FICLONE = 0x40049409;
/** The disk itself failed, which no other way of copying mends. */
const FATAL = ["ENOSPC", "EDQUOT", "EIO"];

/**
 * Makes the target share all data of the source, as a copy on write. Returns false where the file system cannot, or the two
 * are on different ones. @throws SyscallError when the disk is full or broken
 */
export function cloneFile(source: Fd, target: Fd): boolean {
  if (libc.ioctl(target.number, FICLONE, source.number) >= 0) return true;
  if (FATAL.includes(errnoName(lastErrno()))) throw syscallError("ioctl(FICLONE)", target.label);
  return false;
}

/** One piece of a copy by hand. */
const PIECE_BYTES = 1 << 20;
const offsets = new NativeBuffer(16);
const zeros = Buffer.alloc(PIECE_BYTES);

/**
 * Copies a range to the same place of the target, in the kernel where it can (copy_file_range), else by hand. What is there in
 * the target already is replaced. @throws SyscallError
 */
export function copyRange(source: Fd, target: Fd, offset: number, sizeBytes: number): void {
  // Zeros become holes. Where that cannot be (EOPNOTSUPP), zeros are written over what is there.
  const isEmpty = punchHole(target, offset, sizeBytes) === 0;
  let done = 0;
  while (done < sizeBytes) {
    offsets.setPointer(0, offset + done);
    offsets.setPointer(8, offset + done);
    const [from, to] = [offsets.address, offsets.address + 8];
    const copied = Number(libc.copy_file_range(source.number, from, target.number, to, sizeBytes - done, 0));
    if (copied < 0 && FATAL.includes(errnoName(lastErrno())))
      throw syscallError("copy_file_range", target.label);
    if (copied <= 0) {
      copyByHand(source, target, offset + done, sizeBytes - done, isEmpty);
      return;
    }
    done += copied;
  }
}

function copyByHand(source: Fd, target: Fd, offset: number, sizeBytes: number, isEmpty: boolean): void {
  const buffer = new NativeBuffer(Math.min(PIECE_BYTES, sizeBytes));
  const vector = new IoVector(1);
  const transfer = (call: typeof readAt, name: string, fd: Fd, at: number, count: number) => {
    vector.clear();
    vector.push(buffer.address, count);
    const moved = call(fd, vector, at);
    if (moved < 0)
      throw new SyscallError(name, errnoName(-moved), fd.label, { offset: at, sizeBytes: count });
    return moved;
  };
  for (let done = 0; done < sizeBytes; ) {
    const count = transfer(readAt, "pread", source, offset + done, Math.min(PIECE_BYTES, sizeBytes - done));
    // The source ends here; the target's length is the caller's.
    if (count === 0) return;
    const isZero = isEmpty && Buffer.compare(buffer.bytes.subarray(0, count), zeros.subarray(0, count)) === 0;
    if (!isZero) transfer(writeAt, "pwrite", target, offset + done, count);
    done += count;
  }
}
