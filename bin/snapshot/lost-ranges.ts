/** A part of a region. */
export interface MemoryPlace {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** What of a region no extent tells of. */
export function lostRanges(extents: readonly MemoryPlace[], sizeBytes: number): MemoryPlace[] {
  const lost: MemoryPlace[] = [];
  let at = 0;
  for (const extent of [...extents].sort((a, b) => a.offset - b.offset)) {
    if (extent.offset > at) lost.push({ offset: at, sizeBytes: Math.min(extent.offset, sizeBytes) - at });
    at = Math.max(at, extent.offset + extent.sizeBytes);
    if (at >= sizeBytes) break;
  }
  if (at < sizeBytes) lost.push({ offset: at, sizeBytes: sizeBytes - at });
  return lost.filter((range) => range.sizeBytes > 0);
}
