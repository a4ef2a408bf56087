import { UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "../snapshot/mod.ts";

/** The memory of a machine on its way. */
export class RegionTable {
  readonly #sizes: ReadonlyMap<number, number>;

  constructor(regions: readonly SnapshotRegion[]) {
    this.#sizes = new Map(regions.map(({ id, sizeBytes }) => [id, sizeBytes]));
  }

  /** @throws UsageError */
  require(regionId: number, offset: number, sizeBytes: number): void {
    const size = this.#sizes.get(regionId);
    const isWhole = offset % MEMORY_PAGE_BYTES === 0 && sizeBytes % MEMORY_PAGE_BYTES === 0;
    if (size !== undefined && isWhole && offset >= 0 && offset + sizeBytes <= size) return;
    throw new UsageError(`${sizeBytes} bytes at ${offset} are not whole pages of memory region ${regionId}`);
  }
}

/** The stream that a page always takes: in it alone, what is sent later arrives later. */
export function streamOf(regionId: number, offset: number, streams: number): number {
  return 1 + ((Math.floor(offset / MAX_SNAPSHOT_FRAME_BYTES) + regionId) % streams);
}
