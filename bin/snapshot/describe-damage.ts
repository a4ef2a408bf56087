import { RecordType, recordTypeName, type SalvagedSnapshot } from "../../migrate/snapshot/mod.ts";
import { lostRanges, type MemoryPlace } from "./lost-ranges.ts";
import { memoryCells } from "./memory-cells.ts";

const MAP_CELLS = 64;

export type DamageDescription = ReturnType<typeof describeDamage>;

/** What can be believed of a damaged file, and what cannot, as a document. */
export function describeDamage(salvaged: SalvagedSnapshot) {
  const { records, streams, extents, manifest, memoryMap = [], ...rest } = salvaged;
  const counts: Record<string, number> = {};
  for (const { type } of records) {
    const name = recordTypeName(type);
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return {
    isDamaged: true,
    ...rest,
    manifest,
    hasIndex: rest.root !== undefined,
    wholeRecords: counts,
    states: streams.map(({ type, streamId, sizeBytes, hasGap }) => {
      const device = manifest?.devices.find(({ id }) => id === streamId);
      const isDevice = type === RecordType.deviceState;
      const expectedBytes = isDevice ? device?.stateBytes : undefined;
      const isWhole = expectedBytes === undefined ? undefined : !hasGap && sizeBytes === expectedBytes;
      const name = isDevice ? (device?.name ?? `device ${streamId}`) : recordTypeName(type);
      return { name, sizeBytes, expectedBytes, hasGap, isWhole };
    }),
    memory: memoryMap.map((region) => {
      const own = extents.filter(({ regionId }) => regionId === region.id);
      const places: readonly MemoryPlace[] = own;
      const lost = lostRanges(places, region.sizeBytes);
      const lostBytes = lost.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      return { ...region, lostBytes, lost, map: memoryCells(own, region.sizeBytes, MAP_CELLS, lost) };
    }),
  };
}
