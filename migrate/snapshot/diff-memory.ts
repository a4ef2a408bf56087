import { MEMORY_PAGE_BYTES } from "./manifest.ts";
import type { MemoryPiece, SnapshotReader } from "./snapshot-reader.ts";

/** A range of a region, in whole pages. */
export interface MemoryRange {
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface DiffMemoryOptions {
  /** Of the region in the second one, where it has another id there. */
  readonly rightId?: number;
  onProgress?(doneBytes: number): void;
}

/**
 * Where two snapshots of a region of the same size differ, page by page; neighbours are one range.
 *
 * @throws FormatError
 */
export function* diffMemory(
  left: SnapshotReader,
  right: SnapshotReader,
  regionId: number,
  { rightId = regionId, onProgress }: DiffMemoryOptions = {},
): Generator<MemoryRange, void> {
  const [ours, theirs] = [left.memory(regionId), right.memory(rightId)];
  let [a, b] = [ours.next(), theirs.next()];
  let open: { offset: number; sizeBytes: number } | undefined;
  for (let at = 0; a.done !== true && b.done !== true; ) {
    const end = Math.min(endOf(a.value), endOf(b.value));
    for (; at < end; at += MEMORY_PAGE_BYTES) {
      if (isSamePage(a.value, b.value, at)) continue;
      if (open !== undefined && open.offset + open.sizeBytes === at) open.sizeBytes += MEMORY_PAGE_BYTES;
      else {
        if (open !== undefined) yield open;
        open = { offset: at, sizeBytes: MEMORY_PAGE_BYTES };
      }
    }
    onProgress?.(at);
    const [isOurEnd, isTheirEnd] = [endOf(a.value) === at, endOf(b.value) === at];
    if (isOurEnd) a = ours.next();
    if (isTheirEnd) b = theirs.next();
  }
  if (open !== undefined) yield open;
}

const ZERO_PAGE = new Uint8Array(MEMORY_PAGE_BYTES);

function isSamePage(a: MemoryPiece, b: MemoryPiece, at: number): boolean {
  if ("isZero" in a && "isZero" in b) return true;
  return Buffer.compare(pageOf(a, at), pageOf(b, at)) === 0;
}

function pageOf(piece: MemoryPiece, at: number): Uint8Array {
  if (!("bytes" in piece)) return ZERO_PAGE;
  return piece.bytes.subarray(at - piece.offset, at - piece.offset + MEMORY_PAGE_BYTES);
}

function endOf({ offset, sizeBytes }: MemoryPiece): number {
  return offset + sizeBytes;
}
