import type { Extent } from "./extent.ts";

/**
 * What is left of all extents once each later pass has replaced the earlier ones: sorted by region and offset, without
 * overlap. A replaced extent may leave up to two pieces of itself.
 *
 * @param overlap Called for two extents of one pass that overlap; it throws.
 */
export function livingExtents(
  extents: readonly Extent[],
  overlap: (earlier: Extent, later: Extent) => never,
): Extent[] {
  const living: Extent[] = [];
  for (const [, ofRegion] of sortedGroups(extents, (extent) => extent.regionId)) {
    let current: Extent[] = [];
    for (const [, ofPass] of sortedGroups(ofRegion, (extent) => extent.passNumber)) {
      const newer = ofPass.sort(byOffset);
      for (let index = 1; index < newer.length; index += 1) {
        const [earlier, later] = [newer[index - 1] as Extent, newer[index] as Extent];
        if (endOf(earlier) > later.offset) overlap(earlier, later);
      }
      current = current.length === 0 ? newer : overlay(current, newer);
    }
    for (const extent of current) living.push(extent);
  }
  return living;
}

/** Both lists are sorted and free of overlap; so is the result. */
function overlay(older: readonly Extent[], newer: readonly Extent[]): Extent[] {
  const result = [...newer];
  let first = 0;
  for (const extent of older) {
    const end = endOf(extent);
    let from = extent.offset;
    while (first < newer.length && endOf(newer[first] as Extent) <= from) first += 1;
    for (let index = first; index < newer.length; index += 1) {
      const over = newer[index] as Extent;
      if (over.offset >= end) break;
      if (over.offset > from) result.push(cut(extent, from, over.offset));
      from = Math.max(from, endOf(over));
    }
    if (from < end) result.push(cut(extent, from, end));
  }
  return result.sort(byOffset);
}

function cut(extent: Extent, from: number, to: number): Extent {
  const skipBytes = extent.frame === undefined ? 0 : extent.skipBytes + (from - extent.offset);
  return { ...extent, offset: from, sizeBytes: to - from, skipBytes };
}

function sortedGroups(extents: readonly Extent[], keyOf: (extent: Extent) => number): [number, Extent[]][] {
  const groups = new Map<number, Extent[]>();
  for (const extent of extents) {
    const group = groups.get(keyOf(extent));
    if (group === undefined) groups.set(keyOf(extent), [extent]);
    else group.push(extent);
  }
  return [...groups].sort(([a], [b]) => a - b);
}

function byOffset(a: Extent, b: Extent): number {
  return a.offset - b.offset;
}

function endOf(extent: Extent): number {
  return extent.offset + extent.sizeBytes;
}
