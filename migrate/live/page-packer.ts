import { xxh3 } from "../../src/state/mod.ts";
import { createZstd, MEMORY_PAGE_BYTES, type Zstd } from "../snapshot/mod.ts";
import { encodeWindowHead, type MemoryWindow, type WindowRun } from "./memory-window.ts";
import type { PageOwners } from "./page-owners.ts";
import { DuplicateTable, PageCache } from "./sent-pages.ts";

export interface PackPlace {
  readonly regionId: number;
  /** 0 is the first pass over the memory. */
  readonly passNumber: number;
  /** Of zstd; undefined leaves the bytes as they are. */
  readonly level: number | undefined;
}

/** Pages of one region: what they hold, one after another, and where each belongs. */
export interface Pages {
  readonly bytes: Uint8Array;
  /** As many as there are pages in `bytes`, or more. */
  readonly offsets: ArrayLike<number>;
  /** Where zeros belong, ascending. */
  readonly zeros: readonly number[];
}

/** Packs the pages of one stream, in their order. It keeps what is needed to send less. */
export class PagePacker {
  readonly #zstds = new Map<number, Zstd>();
  readonly #cache: PageCache;
  #duplicates: DuplicateTable | undefined = new DuplicateTable();

  /**
   * @param cacheBytes For pages that come again.
   * @param owners Where several packers send the same pages.
   */
  constructor(
    cacheBytes: number,
    readonly owners?: PageOwners,
  ) {
    this.#cache = new PageCache(cacheBytes);
  }

  /** Writes the payload of a memory frame to `room` and returns its size. `bytes` is used up. At least one page. */
  pack({ bytes, offsets, zeros }: Pages, place: PackPlace, room: Uint8Array): number {
    if (place.passNumber > 0) this.#duplicates = undefined;
    // The pages as they will be are hashed first: a delta replaces them.
    const checksum = xxh3(bytes);
    const runs: GrowingRun[] = [];
    this.#duplicates?.nextWindow();
    let plainBytes = 0;
    for (let at = 0, index = 0; at < bytes.length; at += MEMORY_PAGE_BYTES, index += 1) {
      const isNew = this.#page(runs, bytes.subarray(at, at + MEMORY_PAGE_BYTES), place, offsets[index]!);
      if (!isNew) continue;
      if (plainBytes !== at) bytes.copyWithin(plainBytes, at, at + MEMORY_PAGE_BYTES);
      plainBytes += MEMORY_PAGE_BYTES;
    }
    for (const offset of zeros) {
      if (place.passNumber > 0) {
        this.owners?.take(place.regionId, offset);
        this.#cache.forget(place.regionId, offset);
      }
      append(runs, "zero", offset);
    }
    const window = { regionId: place.regionId, runs: runs as WindowRun[], plainBytes, checksum };
    return this.#write(room, window, bytes.subarray(0, plainBytes), place.level);
  }

  /** Whether the page's bytes, or what differs, are to be sent. */
  #page(runs: GrowingRun[], page: Uint8Array, { regionId, passNumber }: PackPlace, offset: number): boolean {
    if (passNumber > 0) {
      // What another has sent meanwhile is not in the cache.
      if (this.owners?.take(regionId, offset) === false) this.#cache.forget(regionId, offset);
      append(runs, this.#cache.exchange(page, regionId, offset) ? "delta" : "data", offset);
      return true;
    }
    const source = this.#duplicates?.findOrAdd(page, regionId, offset);
    if (source === undefined) append(runs, "data", offset);
    else append(runs, "duplicate", offset, source.regionId, source.offset);
    return source === undefined;
  }

  #write(
    room: Uint8Array,
    window: Omit<MemoryWindow, "codec">,
    plain: Uint8Array,
    level: number | undefined,
  ): number {
    if (level !== undefined && plain.length > 0) {
      const head = encodeWindowHead(room, { ...window, codec: "zstd" });
      const sizeBytes = this.#zstd(level).compress(room.subarray(head), plain);
      if (sizeBytes < plain.length) return head + sizeBytes;
    }
    const head = encodeWindowHead(room, { ...window, codec: "plain" });
    room.set(plain, head);
    return head + plain.length;
  }

  #zstd(level: number): Zstd {
    const known = this.#zstds.get(level) ?? createZstd(level);
    this.#zstds.set(level, known);
    return known;
  }
}

/** Changed in place: this runs for each page. */
type GrowingRun = {
  kind: WindowRun["kind"];
  offset: number;
  pages: number;
  sourceRegionId: number;
  sourceOffset: number;
};

function append(
  runs: GrowingRun[],
  kind: WindowRun["kind"],
  offset: number,
  sourceRegionId = 0,
  sourceOffset = 0,
): void {
  const last = runs.at(-1);
  const lastBytes = last === undefined ? 0 : last.pages * MEMORY_PAGE_BYTES;
  const isNext =
    last !== undefined &&
    last.kind === kind &&
    last.offset + lastBytes === offset &&
    (kind !== "duplicate" ||
      (last.sourceRegionId === sourceRegionId && last.sourceOffset + lastBytes === sourceOffset));
  if (isNext) last.pages += 1;
  else runs.push({ kind, offset, pages: 1, sourceRegionId, sourceOffset });
}
