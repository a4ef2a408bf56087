import type { Extent, ExtentKind } from "../../migrate/snapshot/mod.ts";

/** A part of a region: where most of it is zero, a duplicate, data, or as in the parent. */
export type MemoryCell = ExtentKind;

const LEAST_CELL_BYTES = 4096;
/** In a tie. */
const PRECEDENCE: readonly ExtentKind[] = ["data", "duplicate", "parent", "zero"];

/** Cuts a region into equal cells, each of the kind that has most of its bytes; data wins a tie. */
export function memoryCells(
  extents: Iterable<Pick<Extent, "offset" | "sizeBytes" | "kind">>,
  sizeBytes: number,
  maxCells: number,
): MemoryCell[] {
  const count = Math.max(1, Math.min(maxCells, Math.floor(sizeBytes / LEAST_CELL_BYTES)));
  const cells = Array.from({ length: count }, () => ({ zero: 0, duplicate: 0, data: 0, parent: 0 }));
  const cellBytes = sizeBytes / count;
  for (const extent of extents) {
    const end = extent.offset + extent.sizeBytes;
    for (let index = Math.floor(extent.offset / cellBytes); index < count; index += 1) {
      const overlap = Math.min(end, (index + 1) * cellBytes) - Math.max(extent.offset, index * cellBytes);
      if (overlap <= 0) break;
      (cells[index] as Record<ExtentKind, number>)[extent.kind] += overlap;
    }
  }
  return cells.map((cell) => {
    const most = Math.max(...Object.values(cell));
    return PRECEDENCE.find((kind) => cell[kind] === most) ?? "zero";
  });
}
