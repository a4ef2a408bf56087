import { type Frame, LAST_FRAME } from "./extent.ts";
import type { SealPlace } from "./file-cipher.ts";
import { type RecordEntry, RecordType } from "./record.ts";

/** What a sealed frame is bound to. `recordId` is that of the record that it is in. */
export function framePlace({ offset, sealNumber = 0 }: Frame, recordId: bigint): SealPlace {
  return {
    position: offset,
    type: RecordType.extents,
    recordId,
    frameNumber: sealNumber & (LAST_FRAME - 1),
    isLast: (sealNumber & LAST_FRAME) !== 0,
  };
}

/** The id of the record that an offset of the file is in, by halving. Records are in order and without gaps. */
export function recordIdAt(entries: readonly RecordEntry[], offset: number): bigint {
  let [low, high] = [0, entries.length];
  while (low + 1 < high) {
    const middle = (low + high) >>> 1;
    if ((entries[middle] as RecordEntry).offset <= offset) low = middle;
    else high = middle;
  }
  return entries[low]?.id ?? 0n;
}
