import { FormatError } from "../../src/errors.ts";
import { viewOf } from "./bytes.ts";
import { decodeExtent, EXTENT_ENTRY_BYTES, type Extent } from "./extent.ts";
import type { SnapshotRegion } from "./manifest.ts";
import { RECORD_OVERHEAD_BYTES } from "./record.ts";
import type { SnapshotStructure } from "./structure.ts";

/** The living extents of the index, decoded and checked as a whole when the first one is asked for. */
export class ExtentTable {
  readonly #structure: SnapshotStructure;
  #byRegion: Map<number, Extent[]> | undefined;

  constructor(structure: SnapshotStructure) {
    this.#structure = structure;
  }

  /** @throws FormatError */
  ofRegion(regionId: number): readonly Extent[] {
    this.#byRegion ??= decodeAll(this.#structure);
    return this.#byRegion.get(regionId) ?? [];
  }
}

function decodeAll({ index, memoryMap }: SnapshotStructure): Map<number, Extent[]> {
  const byRegion = new Map<number, Extent[]>(memoryMap.map((region) => [region.id, []]));
  const last = index.records.at(-1);
  const end = last === undefined ? 0 : last.offset + last.payloadBytes + RECORD_OVERHEAD_BYTES;
  const view = viewOf(index.extentTable);
  for (let at = 0; at < view.byteLength; at += EXTENT_ENTRY_BYTES) {
    const extent = decodeExtent(view, at, end, end);
    const extents = byRegion.get(extent.regionId);
    if (extents === undefined) {
      throw new FormatError(
        `an extent names memory region ${extent.regionId}, which does not exist`,
        "index",
        end,
      );
    }
    extents.push(extent);
  }
  for (const region of memoryMap) expectCovered(region, byRegion.get(region.id) ?? [], end);
  return byRegion;
}

/** From the first page to the last, without gap or overlap: a page that nobody wrote is not taken for zeros. */
function expectCovered(region: SnapshotRegion, extents: readonly Extent[], indexOffset: number): void {
  let position = 0;
  for (const extent of extents) {
    if (extent.offset !== position) {
      const what = extent.offset < position ? "overlap or are out of order" : "leave a gap";
      const where = `extents of memory region ${region.id}`;
      throw new FormatError(`the extents ${what} at 0x${extent.offset.toString(16)}`, where, indexOffset);
    }
    position += extent.sizeBytes;
  }
  if (position !== region.sizeBytes) {
    const message = `the extents cover ${position} of ${region.sizeBytes} bytes`;
    throw new FormatError(message, `extents of memory region ${region.id}`, indexOffset);
  }
}
