import { FormatError } from "../../src/errors.ts";
import { readU64, viewOf } from "./bytes.ts";

/** The halves of a page's hash: XXH3 with 64 bits and either half of the file's secret as its seed. */
export const PAGE_HASH_BYTES = 16;
export const HASH_KEY_BYTES = 16;
/** u32 version = 0, u32 region, u64 number of the first hash in its region, u8[16] secret; then the hashes. */
export const HEAD_BYTES = 16 + HASH_KEY_BYTES;

/** The hashes of a file's records, each region's in order. */
export class StoredHashes {
  readonly key: Uint8Array;
  readonly #byRegion = new Map<number, { readonly parts: Uint8Array[]; count: number }>();

  private constructor(key: Uint8Array) {
    this.key = key;
  }

  /** Undefined where there are none, or those of a later version. @throws FormatError */
  static of(payloads: Iterable<Uint8Array>): StoredHashes | undefined {
    let stored: StoredHashes | undefined;
    for (const payload of payloads) {
      if (payload.length < HEAD_BYTES || (payload.length - HEAD_BYTES) % PAGE_HASH_BYTES !== 0)
        throw new FormatError("half a hash", "page hashes");
      // Optional records: those of a later version are not for us.
      if (viewOf(payload).getUint32(0, true) !== 0) return undefined;
      const key = payload.slice(16, HEAD_BYTES);
      stored ??= new StoredHashes(key);
      if (Buffer.compare(stored.key, key) !== 0) throw new FormatError("two secrets", "page hashes");
      stored.#add(payload);
    }
    return stored;
  }

  /** All hashes of a region, in the order of its pages of data. */
  ofRegion(regionId: number): Uint8Array {
    return Buffer.concat(this.#byRegion.get(regionId)?.parts ?? []);
  }

  /** Fills `into` with a region's next hashes; false where it has no more. */
  take(regionId: number, into: Uint8Array): boolean {
    const parts = this.#byRegion.get(regionId)?.parts ?? [];
    for (let done = 0; done < into.length; ) {
      const [part] = parts;
      if (part === undefined) return false;
      const count = Math.min(part.length, into.length - done);
      into.set(part.subarray(0, count), done);
      done += count;
      if (count === part.length) parts.shift();
      else parts[0] = part.subarray(count);
    }
    return true;
  }

  /** @throws FormatError where hashes are left of which there is no page */
  expectEmpty(): void {
    for (const { parts } of this.#byRegion.values())
      if (parts.length > 0) throw new FormatError("hashes of pages that do not exist", "page hashes");
  }

  #add(payload: Uint8Array): void {
    const view = viewOf(payload);
    const regionId = view.getUint32(4, true);
    const region = this.#byRegion.get(regionId) ?? { parts: [], count: 0 };
    this.#byRegion.set(regionId, region);
    if (readU64(view, 8) !== region.count) throw new FormatError("hashes are missing", "page hashes");
    const hashes = payload.slice(HEAD_BYTES);
    if (hashes.length > 0) region.parts.push(hashes);
    region.count += hashes.length / PAGE_HASH_BYTES;
  }
}
