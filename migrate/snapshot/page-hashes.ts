import { MAX_SNAPSHOT_HASHED_BYTES } from "../../src/limits.ts";
import { viewOf, writeU64 } from "./bytes.ts";
import type { Extent } from "./extent.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "./manifest.ts";
import { HEAD_BYTES, PAGE_HASH_BYTES, StoredHashes } from "./stored-hashes.ts";

/** Pages of one record, and at most one extent more: 16 MiB, for 4 GiB of data. */
const RECORD_PAGES = 1 << 20;

/** Hashes the pages of one thread. */
export class PageHasher {
  readonly #seeds: readonly [bigint, bigint];

  constructor(key: Uint8Array) {
    const view = viewOf(key);
    this.#seeds = [view.getBigUint64(0, true), view.getBigUint64(8, true)];
  }

  /** @param index Of the page in `into`. */
  hash(page: Uint8Array, into: BigUint64Array, index: number): void {
    into[2 * index] = Bun.hash.xxHash3(page, this.#seeds[0]);
    into[2 * index + 1] = Bun.hash.xxHash3(page, this.#seeds[1]);
  }
}

/** A hash of each page of a machine's memory, shared between threads. */
export class PageHashes {
  /** Region by region, in the order of the memory map. */
  readonly memory: SharedArrayBuffer;
  readonly key: Uint8Array;
  readonly #words: BigUint64Array;
  readonly #regions: readonly SnapshotRegion[];
  readonly #zero = new BigUint64Array(2);
  /** Number of each region's first page. */
  readonly #starts = new Map<number, number>();

  constructor(regions: readonly SnapshotRegion[], key: Uint8Array, memory?: SharedArrayBuffer) {
    let pages = 0;
    for (const { id, sizeBytes } of regions) {
      this.#starts.set(id, pages);
      pages += sizeBytes / MEMORY_PAGE_BYTES;
    }
    this.#regions = regions;
    this.key = key;
    this.memory = memory ?? new SharedArrayBuffer(pages * PAGE_HASH_BYTES);
    this.#words = new BigUint64Array(this.memory);
    new PageHasher(key).hash(new Uint8Array(MEMORY_PAGE_BYTES), this.#zero, 0);
  }

  /** Whether a machine is small enough that its hashes are held in memory. */
  static fits(regions: readonly SnapshotRegion[]): boolean {
    return regions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) <= MAX_SNAPSHOT_HASHED_BYTES;
  }

  /** The hashes of a range, two words for each page: a view, not a copy. */
  range(regionId: number, offset: number, sizeBytes: number): BigUint64Array {
    const first = 2 * ((this.#starts.get(regionId) ?? 0) + offset / MEMORY_PAGE_BYTES);
    return this.#words.subarray(first, first + (2 * sizeBytes) / MEMORY_PAGE_BYTES);
  }

  /** All pages of a range are zero. */
  setZero(regionId: number, offset: number, sizeBytes: number): void {
    const range = this.range(regionId, offset, sizeBytes);
    range.set(this.#zero);
    for (let done = 2; done < range.length; done *= 2) range.copyWithin(done, 0, range.length - done);
  }

  /**
   * Payloads of the records that hold what nobody else knows: the hashes of pages of data.
   *
   * @param extentsOf The living extents of a region, in order.
   */
  *payloads(extentsOf: ExtentsOf): Generator<Uint8Array, void> {
    for (const { id } of this.#regions) {
      let first = 0;
      for (const ranges of batches(extentsOf(id))) {
        const pages = ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes / MEMORY_PAGE_BYTES, 0);
        const payload = new Uint8Array(HEAD_BYTES + pages * PAGE_HASH_BYTES);
        const view = viewOf(payload);
        view.setUint32(4, id, true);
        writeU64(view, 8, first);
        payload.set(this.key, 16);
        let at = HEAD_BYTES;
        for (const { offset, sizeBytes } of ranges) {
          payload.set(bytesOf(this.range(id, offset, sizeBytes)), at);
          at += (sizeBytes / MEMORY_PAGE_BYTES) * PAGE_HASH_BYTES;
        }
        yield payload;
        first += pages;
      }
    }
  }

  /**
   * What records hold, with zeros, and with the parent's where a page is as there; undefined if a page has none.
   *
   * @throws FormatError for records that cannot be
   */
  static read(
    regions: readonly SnapshotRegion[],
    extentsOf: ExtentsOf,
    payloads: Iterable<Uint8Array>,
    parent?: PageHashes,
  ): PageHashes | undefined {
    const stored = StoredHashes.of(payloads);
    const key = stored?.key ?? parent?.key;
    if (key === undefined || (parent !== undefined && Buffer.compare(parent.key, key) !== 0))
      return undefined;
    const hashes = new PageHashes(regions, key);
    for (const { id } of regions) {
      for (const { kind, offset, sizeBytes } of extentsOf(id)) {
        const range = hashes.range(id, offset, sizeBytes);
        const theirs = kind === "parent" ? parent?.range(id, offset, sizeBytes) : undefined;
        if (kind === "zero") hashes.setZero(id, offset, sizeBytes);
        else if (theirs !== undefined) range.set(theirs);
        else if (kind === "parent" || stored?.take(id, bytesOf(range)) !== true) return undefined;
      }
    }
    stored?.expectEmpty();
    return hashes;
  }
}

type ExtentsOf = (regionId: number) => readonly Pick<Extent, "kind" | "offset" | "sizeBytes">[];

/** Ranges of data, so many at a time as go into one record. */
function* batches(extents: ReturnType<ExtentsOf>): Generator<{ offset: number; sizeBytes: number }[], void> {
  let batch: { offset: number; sizeBytes: number }[] = [];
  let pages = 0;
  for (const { kind, offset, sizeBytes } of extents) {
    if (kind !== "data" && kind !== "duplicate") continue;
    batch.push({ offset, sizeBytes });
    pages += sizeBytes / MEMORY_PAGE_BYTES;
    if (pages < RECORD_PAGES) continue;
    yield batch;
    [batch, pages] = [[], 0];
  }
  if (batch.length > 0) yield batch;
}

function bytesOf(words: BigUint64Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}
