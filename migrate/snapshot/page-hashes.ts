import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_HASHED_BYTES } from "../../src/limits.ts";
import { readU64, viewOf, writeU64 } from "./bytes.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "./manifest.ts";

/** The halves of a page's hash: XXH3 with 64 bits and either half of the file's secret as its seed. */
export const PAGE_HASH_BYTES = 16;
export const HASH_KEY_BYTES = 16;
/** u32 version = 0, u32 region, u64 first page, u8[16] secret; then the hashes. */
const HEAD_BYTES = 16 + HASH_KEY_BYTES;
/** Pages of one record: 16 MiB, for 4 GiB of memory. */
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

  /** Payloads of the records that hold it. */
  *payloads(): Generator<Uint8Array, void> {
    for (const { id, sizeBytes } of this.#regions) {
      const pages = sizeBytes / MEMORY_PAGE_BYTES;
      for (let first = 0; first < pages; first += RECORD_PAGES) {
        const count = Math.min(RECORD_PAGES, pages - first);
        const words = this.range(id, first * MEMORY_PAGE_BYTES, count * MEMORY_PAGE_BYTES);
        const payload = new Uint8Array(HEAD_BYTES + words.byteLength);
        const view = viewOf(payload);
        view.setUint32(4, id, true);
        writeU64(view, 8, first);
        payload.set(this.key, 16);
        payload.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), HEAD_BYTES);
        yield payload;
      }
    }
  }

  /**
   * What records hold, if they hold it for every page.
   *
   * @throws FormatError for records that cannot be
   */
  static read(regions: readonly SnapshotRegion[], payloads: Iterable<Uint8Array>): PageHashes | undefined {
    let hashes: PageHashes | undefined;
    let missing = regions.reduce((sum, { sizeBytes }) => sum + sizeBytes / MEMORY_PAGE_BYTES, 0);
    for (const payload of payloads) {
      const view = viewOf(payload);
      const count = (payload.length - HEAD_BYTES) / PAGE_HASH_BYTES;
      if (!Number.isInteger(count) || count < 0) throw new FormatError("half a hash", "page hashes");
      // A later version's: it is optional, and so not for us.
      if (view.getUint32(0, true) !== 0) return undefined;
      const region = regions.find(({ id }) => id === view.getUint32(4, true));
      const first = readU64(view, 8);
      if (region === undefined || first + count > region.sizeBytes / MEMORY_PAGE_BYTES)
        throw new FormatError("hashes of pages that do not exist", "page hashes");
      const key = payload.slice(16, HEAD_BYTES);
      hashes ??= new PageHashes(regions, key);
      if (Buffer.compare(hashes.key, key) !== 0) throw new FormatError("two secrets", "page hashes");
      const range = hashes.range(region.id, first * MEMORY_PAGE_BYTES, count * MEMORY_PAGE_BYTES);
      new Uint8Array(range.buffer, range.byteOffset, range.byteLength).set(payload.subarray(HEAD_BYTES));
      missing -= count;
    }
    return missing === 0 ? hashes : undefined;
  }
}
