import { FormatError } from "../../src/errors.ts";
import type { Extent, Frame } from "./extent.ts";
import type { FileInput } from "./file-input.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";
import { guestRange } from "./name-damage.ts";
import { PageHasher } from "./page-hashes.ts";
import { type RecordEntry, RecordType } from "./record.ts";
import { PAGE_HASH_BYTES, StoredHashes } from "./stored-hashes.ts";
import { openPayload, readPayload, type SnapshotStructure } from "./structure.ts";

type FramedExtent = Extent & { readonly frame: Frame };

/** So many ranges say enough. */
const MAX_RANGES = 4;

/** Compares the hashes that a file has with the pages that they are of, extent by extent in any order. */
export class PageHashCheck {
  readonly #structure: SnapshotStructure;
  readonly #hasher: PageHasher;
  readonly #byRegion: ReadonlyMap<number, Uint8Array>;
  /** For each extent, the number of its first hash within its region. */
  readonly #firstOf: ReadonlyMap<FramedExtent, number>;
  readonly #fresh = new BigUint64Array(2);
  readonly #wrong: { readonly regionId: number; readonly offset: number; readonly sizeBytes: number }[] = [];

  private constructor(
    structure: SnapshotStructure,
    stored: StoredHashes,
    byRegion: ReadonlyMap<number, Uint8Array>,
    firstOf: ReadonlyMap<FramedExtent, number>,
  ) {
    this.#structure = structure;
    this.#hasher = new PageHasher(stored.key);
    this.#byRegion = byRegion;
    this.#firstOf = firstOf;
  }

  /**
   * Undefined for a file without hashes, with those of a later version, or with too few: then they count for nothing.
   *
   * @param living Those with frames, each region's in order.
   * @throws FormatError for records that cannot be
   */
  static of(
    input: FileInput,
    structure: SnapshotStructure,
    living: readonly FramedExtent[],
  ): PageHashCheck | undefined {
    const entries = hashRecords(structure);
    const payloads = entries.values().map((entry) => openPayload(input, entry, readPayload(input, entry)));
    const stored = StoredHashes.of(payloads);
    if (stored === undefined) return undefined;
    const counts = new Map<number, number>();
    const firstOf = new Map<FramedExtent, number>();
    for (const extent of living) {
      const first = counts.get(extent.regionId) ?? 0;
      firstOf.set(extent, first);
      counts.set(extent.regionId, first + extent.sizeBytes / MEMORY_PAGE_BYTES);
    }
    const byRegion = new Map([...counts.keys()].map((id) => [id, stored.ofRegion(id)]));
    const isShort = [...counts].some(
      ([id, count]) => (byRegion.get(id)?.length ?? 0) < count * PAGE_HASH_BYTES,
    );
    if (isShort) return undefined;
    for (const [id, bytes] of byRegion) stored.take(id, new Uint8Array(bytes.length));
    stored.expectEmpty();
    return new PageHashCheck(structure, stored, byRegion, firstOf);
  }

  add(extent: FramedExtent, content: Uint8Array): void {
    const { regionId, offset } = extent;
    const stored = this.#byRegion.get(regionId) as Uint8Array;
    const fresh = new Uint8Array(this.#fresh.buffer);
    let at = (this.#firstOf.get(extent) as number) * PAGE_HASH_BYTES;
    for (let done = 0; done < content.length; done += MEMORY_PAGE_BYTES, at += PAGE_HASH_BYTES) {
      this.#hasher.hash(content.subarray(done, done + MEMORY_PAGE_BYTES), this.#fresh, 0);
      if (Buffer.compare(fresh, stored.subarray(at, at + PAGE_HASH_BYTES)) === 0) continue;
      this.#wrong.push({ regionId, offset: offset + done, sizeBytes: MEMORY_PAGE_BYTES });
    }
  }

  /** @throws FormatError that names the memory whose hashes are wrong */
  finish(): void {
    const ranges = joined(this.#wrong);
    if (ranges.length === 0) return;
    const named = ranges.slice(0, MAX_RANGES).map((range) => guestRange(range, this.#structure.memoryMap));
    const more = ranges.length > named.length ? ` and ${ranges.length - named.length} more` : "";
    throw new FormatError(
      `the hashes are not those of memory ${named.join(", ")}${more}: no snapshot should be based on this one`,
      "page hashes",
      hashRecords(this.#structure)[0]?.offset,
    );
  }
}

function hashRecords({ index }: SnapshotStructure): RecordEntry[] {
  return index.records.filter(({ type }) => type === RecordType.pageHashes);
}

type Range = Pick<Extent, "regionId" | "offset" | "sizeBytes">;

/** Sorted, and neighbours as one. */
function joined(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => a.regionId - b.regionId || a.offset - b.offset);
  const result: { regionId: number; offset: number; sizeBytes: number }[] = [];
  for (const range of sorted) {
    const last = result.at(-1);
    const isNext = last?.regionId === range.regionId && last.offset + last.sizeBytes === range.offset;
    if (last !== undefined && isNext) last.sizeBytes += range.sizeBytes;
    else result.push({ ...range });
  }
  return result;
}
