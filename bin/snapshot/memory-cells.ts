import type { Extent, ExtentKind } from "../../migrate/snapshot/mod.ts";
import type { MemoryPlace } from "./lost-ranges.ts";

/** A part of a region: where most of it is zero, a duplicate, data, or as in the parent; "lost" where any of it is. */
export type MemoryCell = ExtentKind | "lost";

const LEAST_CELL_BYTES = 4096;
/** In a tie. */
const PRECEDENCE: readonly ExtentKind[] = ["data", "duplicate", "parent", "zero"];

/** Cuts a region into equal cells, each of the kind that has most of its bytes; data wins a tie. */
export function memoryCells(
  extents: Iterable<Pick<Extent, "offset" | "sizeBytes" | "kind">>,
  sizeBytes: number,
  maxCells: number,
  lost: Iterable<MemoryPlace> = [],
): MemoryCell[] {
  const count = Math.max(1, Math.min(maxCells, Math.floor(sizeBytes / LEAST_CELL_BYTES)));
  const cells = Array.from({ length: count }, () => ({ zero: 0, duplicate: 0, data: 0, parent: 0, lost: 0 }));
  const cellBytes = sizeBytes / count;
  const add = (place: MemoryPlace, kind: MemoryCell) => {
    const end = place.offset + place.sizeBytes;
    for (let index = Math.floor(place.offset / cellBytes); index < count; index += 1) {
      const overlap = Math.min(end, (index + 1) * cellBytes) - Math.max(place.offset, index * cellBytes);
      if (overlap <= 0) break;
      (cells[index] as Record<MemoryCell, number>)[kind] += overlap;
    }
  };
  for (const extent of extents) add(extent, extent.kind);
  for (const range of lost) add(range, "lost");
  return cells.map((cell) => {
    if (cell.lost > 0) return "lost";
    const most = Math.max(...Object.values(cell));
    return PRECEDENCE.find((kind) => cell[kind] === most) ?? "zero";
  });
}
