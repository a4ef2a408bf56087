import type { IoVector } from "../../src/sys/mod.ts";
import { ACTION, type BlkRequest, HEADER_BYTES } from "./request.ts";

/** Fills `vector` with the pieces of a read's or write's data that come next, as many as fit. */
export function nextPieces(request: BlkRequest, vector: IoVector): void {
  const { chain, action, sizeBytes, doneBytes } = request;
  const isRead = action === ACTION.read;
  const end = isRead ? chain.pieceCount : chain.readableCount;
  let skip = doneBytes + (isRead ? 0 : HEADER_BYTES);
  let left = sizeBytes - doneBytes;
  vector.clear();
  for (let i = isRead ? chain.readableCount : 0; i < end && left > 0 && vector.count < vector.capacity; i++) {
    const length = chain.lengths[i]!;
    if (skip >= length) {
      skip -= length;
      continue;
    }
    const count = Math.min(length - skip, left);
    vector.push(chain.addresses[i]! + skip, count);
    left -= count;
    skip = 0;
  }
}

/** True when all of the data, in memory and in the image, lies on multiples of `alignment` (a power of two). */
export function isAligned(request: BlkRequest, alignment: number): boolean {
  const { chain, action, offset, sizeBytes } = request;
  if (offset % alignment !== 0 || sizeBytes % alignment !== 0) return false;
  const isRead = action === ACTION.read;
  const end = isRead ? chain.pieceCount : chain.readableCount;
  let skip = isRead ? 0 : HEADER_BYTES;
  let left = sizeBytes;
  for (let i = isRead ? chain.readableCount : 0; i < end && left > 0; i++) {
    const length = chain.lengths[i]!;
    if (skip >= length) {
      skip -= length;
      continue;
    }
    const count = Math.min(length - skip, left);
    if ((chain.addresses[i]! + skip) % alignment !== 0 || count % alignment !== 0) return false;
    left -= count;
    skip = 0;
  }
  return true;
}
