import { FormatError } from "../../src/errors.ts";
import type { Extent, Frame } from "./extent.ts";
import type { SnapshotRegion } from "./manifest.ts";
import { RECORD_OVERHEAD_BYTES, type RecordEntry, RecordType } from "./record.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";
import type { SnapshotStructure } from "./structure.ts";
import type { VerifyProblem } from "./verify.ts";

type FramedExtent = Extent & { readonly frame: Frame };

/** So many ranges say enough about a record. */
const MAX_RANGES = 4;

/** Says by guest addresses which memory a damaged record of extents hits: that whose frames are damaged themselves. */
export function nameDamage(
  problem: VerifyProblem,
  { index, memoryMap }: Pick<SnapshotStructure, "index" | "memoryMap">,
  reader: Pick<SnapshotReader, "readExtent">,
  living: readonly Extent[] | undefined,
): VerifyProblem {
  const entry = index.records.find(({ offset }) => offset === problem.offset);
  if (entry?.type !== RecordType.extents || living === undefined) return problem;
  const inside = framesIn(entry, living);
  const damaged = inside.filter((extent) => isDamaged(extent, reader));
  // Where every frame is whole, the table of the record is hit, which only a reader without the index needs.
  if (damaged.length === 0) return withHit(problem, "none, only the record's own table");
  const ranges = damaged.slice(0, MAX_RANGES).map((extent) => guestRange(extent, memoryMap));
  const more = damaged.length > ranges.length ? ` and ${damaged.length - ranges.length} more` : "";
  return withHit(problem, `memory ${ranges.join(", ")}${more}`);
}

function framesIn({ offset, payloadBytes }: RecordEntry, living: readonly Extent[]): FramedExtent[] {
  const end = offset + payloadBytes + RECORD_OVERHEAD_BYTES;
  return living.flatMap((extent) => {
    const { frame } = extent;
    return frame !== undefined && frame.offset >= offset && frame.offset < end ? [{ ...extent, frame }] : [];
  });
}

function isDamaged(extent: FramedExtent, reader: Pick<SnapshotReader, "readExtent">): boolean {
  try {
    reader.readExtent(extent);
    return false;
  } catch (error) {
    if (error instanceof FormatError) return true;
    throw error;
  }
}

/** "ram 0x1000…0x2000": a range of a region, by guest addresses. */
export function guestRange(
  { regionId, offset, sizeBytes }: Pick<Extent, "regionId" | "offset" | "sizeBytes">,
  memoryMap: readonly SnapshotRegion[],
): string {
  const region = memoryMap.find(({ id }) => id === regionId);
  const start = (region?.guestAddress ?? 0) + offset;
  return `${region?.name ?? regionId} 0x${start.toString(16)}…0x${(start + sizeBytes).toString(16)}`;
}

function withHit(problem: VerifyProblem, what: string): VerifyProblem {
  return { ...problem, message: `${problem.message}; memory hit: ${what}` };
}
