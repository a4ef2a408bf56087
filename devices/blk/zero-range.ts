import { constants } from "node:os";
import { allocateRange, FALLOC, type Fd, IoVector, NativeBuffer, writeAt } from "../../src/sys/mod.ts";

const EOPNOTSUPP = constants.errno.EOPNOTSUPP;
/** Zeros that one call writes, from one block that all its pieces name. */
const PIECE_BYTES = 64 << 10;
const PIECES = 64;

/** fallocate's mode for a discard, and for zeros whose space may be given back. */
export const PUNCH_MODE = FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE;
/** fallocate's mode for zeros whose space is to stay. */
export const ZERO_MODE = FALLOC.ZERO_RANGE | FALLOC.KEEP_SIZE;

/** True for a result that says that the file system cannot do this fallocate, though it may do others. */
export function isUnsupported(result: number): boolean {
  return result === -EOPNOTSUPP;
}

/**
 * Zeros in line, where fallocate's mode for it is not known: tmpfs has no ZERO_RANGE, some file systems have neither.
 * Returns 0 or the negative errno.
 */
export function zeroByOtherMeans(file: Fd, offset: number, sizeBytes: number, mayUnmap: boolean): number {
  const punched = allocateRange(file, PUNCH_MODE, offset, sizeBytes);
  if (isUnsupported(punched)) return writeZeros(file, offset, sizeBytes);
  if (punched < 0 || mayUnmap) return punched;
  const kept = allocateRange(file, FALLOC.KEEP_SIZE, offset, sizeBytes);
  return isUnsupported(kept) ? 0 : kept;
}

function writeZeros(file: Fd, offset: number, sizeBytes: number): number {
  const zeros = new NativeBuffer(PIECE_BYTES);
  const vector = new IoVector(PIECES);
  for (let done = 0; done < sizeBytes; ) {
    vector.clear();
    for (let left = sizeBytes - done; left > 0 && vector.count < PIECES; left -= PIECE_BYTES) {
      vector.push(zeros.address, Math.min(left, PIECE_BYTES));
    }
    const moved = writeAt(file, vector, offset + done);
    if (moved < 0) return moved;
    done += moved;
  }
  return 0;
}
