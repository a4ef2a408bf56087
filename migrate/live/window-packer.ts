import { xxh3 } from "../../src/state/mod.ts";
import { createZstd, MEMORY_PAGE_BYTES, type Zstd, zeroRuns } from "../snapshot/mod.ts";
import { encodeWindowHead, type WindowRun } from "./memory-window.ts";
import { DuplicateTable, PageCache, type PagePlace } from "./sent-pages.ts";

export interface WindowPlace extends PagePlace {
  /** 0 is the first pass over the memory. */
  readonly passNumber: number;
  /** Of zstd; undefined leaves the bytes as they are. */
  readonly level: number | undefined;
}

/** Packs the windows of one stream, in their order. It keeps what is needed to send less. */
export class WindowPacker {
  readonly #zstds = new Map<number, Zstd>();
  readonly #cache: PageCache;
  #duplicates: DuplicateTable | undefined = new DuplicateTable();

  /** @param cacheBytes For pages that come again. */
  constructor(cacheBytes: number) {
    this.#cache = new PageCache(cacheBytes);
  }

  /**
   * Writes the payload of a memory frame to `room` and returns its size. `window`, whole pages, is used up.
   */
  pack(window: Uint8Array, place: WindowPlace, room: Uint8Array): number {
    if (place.passNumber > 0) this.#duplicates = undefined;
    const runs: GrowingRun[] = [];
    let plainBytes = 0;
    // The pages as they will be are hashed first: a delta replaces them.
    const pieces = zeroRuns(window);
    const checksum = checksumOf(window, pieces);
    for (const { offset, sizeBytes, isZero } of pieces) {
      for (let at = offset; at < offset + sizeBytes; at += MEMORY_PAGE_BYTES) {
        const isNew = isZero ? this.#zero(runs, place, at) : this.#page(runs, window, place, at);
        if (!isNew) continue;
        if (plainBytes !== at) window.copyWithin(plainBytes, at, at + MEMORY_PAGE_BYTES);
        plainBytes += MEMORY_PAGE_BYTES;
      }
    }
    const packed = { ...place, runs, plainBytes, checksum };
    return this.#write(room, packed, window.subarray(0, plainBytes), place.level);
  }

  #zero(runs: GrowingRun[], { regionId, offset, passNumber }: WindowPlace, at: number): false {
    if (passNumber > 0) this.#cache.forget(regionId, offset + at);
    append(runs, "zero");
    return false;
  }

  /** Whether the page's bytes, or what differs, are to be sent. */
  #page(
    runs: GrowingRun[],
    window: Uint8Array,
    { regionId, offset, passNumber }: WindowPlace,
    at: number,
  ): boolean {
    const page = window.subarray(at, at + MEMORY_PAGE_BYTES);
    if (passNumber > 0) {
      append(runs, this.#cache.exchange(page, regionId, offset + at) ? "delta" : "data");
      return true;
    }
    const place = this.#duplicates?.findOrAdd(page, regionId, offset + at);
    if (place === undefined) append(runs, "data");
    else append(runs, "duplicate", place.regionId, place.offset);
    return place === undefined;
  }

  #write(
    room: Uint8Array,
    window: Omit<Parameters<typeof encodeWindowHead>[1], "codec">,
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

/** Over the xxh3 of each run that is not zero: the receiver has them in the same pieces. */
export function checksumOf(
  window: Uint8Array,
  pieces: readonly { readonly offset: number; readonly sizeBytes: number; readonly isZero: boolean }[],
): bigint {
  const parts = pieces.filter(({ isZero }) => !isZero);
  const hashes = BigUint64Array.from(parts, ({ offset, sizeBytes }) =>
    xxh3(window.subarray(offset, offset + sizeBytes)),
  );
  return xxh3(new Uint8Array(hashes.buffer));
}

/** Changed in place: this runs for each page. */
type GrowingRun = { kind: WindowRun["kind"]; pages: number; regionId: number; offset: number };

function append(runs: GrowingRun[], kind: WindowRun["kind"], regionId = 0, offset = 0): void {
  const last = runs.at(-1);
  const isNext =
    last !== undefined &&
    last.kind === kind &&
    (kind !== "duplicate" ||
      (last.regionId === regionId && last.offset + last.pages * MEMORY_PAGE_BYTES === offset));
  if (isNext) last.pages += 1;
  else runs.push({ kind, pages: 1, regionId, offset });
}
