import type { Extent } from "./extent.ts";

/** An extent, and which file of a chain its frame is in: 0 the file itself, 1 its parent, … */
export interface ResolvedExtent extends Extent {
  readonly fileNumber: number;
  /** Of the record that the frame is in. */
  readonly recordId: bigint;
}

/** Puts the parent's extents where a file says "as in the parent". Both cover the region, in order. */
export function resolveExtents(
  own: readonly Extent[],
  parent: readonly ResolvedExtent[],
  recordIdOf: (offset: number) => bigint,
): ResolvedExtent[] {
  const resolved: ResolvedExtent[] = [];
  let first = 0;
  for (const extent of own) {
    if (extent.kind !== "parent") {
      const recordId = extent.frame === undefined ? 0n : recordIdOf(extent.frame.offset);
      resolved.push({ ...extent, fileNumber: 0, recordId });
      continue;
    }
    const end = extent.offset + extent.sizeBytes;
    while (endOf(parent[first]) <= extent.offset) first += 1;
    for (let index = first; index < parent.length; index += 1) {
      const below = parent[index] as ResolvedExtent;
      if (below.offset >= end) break;
      const from = Math.max(below.offset, extent.offset);
      const to = Math.min(endOf(below), end);
      const skipBytes = below.frame === undefined ? 0 : below.skipBytes + (from - below.offset);
      resolved.push({
        ...below,
        offset: from,
        sizeBytes: to - from,
        skipBytes,
        fileNumber: below.fileNumber + 1,
      });
    }
  }
  return resolved;
}

function endOf(extent: Extent | undefined): number {
  return extent === undefined ? Number.POSITIVE_INFINITY : extent.offset + extent.sizeBytes;
}
