import { randomFillSync } from "node:crypto";
import type { SnapshotRegion } from "./manifest.ts";
import type { PlainWindow } from "./pack-window.ts";
import { PageHashes } from "./page-hashes.ts";
import { HASH_KEY_BYTES } from "./stored-hashes.ts";

/** The hashes of a snapshot that is being written, page by page as its content is decided. */
export class HashKeeper {
  readonly hashes: PageHashes;
  /** Those of the base: what is as there keeps its hash. */
  readonly #base: PageHashes | undefined;

  /** With a base that has hashes, its secret is taken over: only so can they be compared. */
  constructor(regions: readonly SnapshotRegion[], base: PageHashes | undefined) {
    this.#base = base;
    const key = base?.key ?? randomFillSync(new Uint8Array(HASH_KEY_BYTES));
    this.hashes = new PageHashes(regions, key);
  }

  /** @param fresh Two words for each page; those of pages that are known to be as in the base are not looked at. */
  window({ regionId, offset, plain, unchanged }: PlainWindow, fresh: BigUint64Array): void {
    const range = this.hashes.range(regionId, offset, plain.length);
    const theirs = unchanged && this.#base?.range(regionId, offset, plain.length);
    if (unchanged === undefined || theirs === undefined) {
      range.set(fresh.subarray(0, range.length));
      return;
    }
    range.set(theirs);
    for (let page = 0; page < unchanged.length; page += 1) {
      if (unchanged[page] === 1) continue;
      range[2 * page] = fresh[2 * page] as bigint;
      range[2 * page + 1] = fresh[2 * page + 1] as bigint;
    }
  }

  hole(regionId: number, offset: number, sizeBytes: number): void {
    this.hashes.setZero(regionId, offset, sizeBytes);
  }

  unchanged(regionId: number, offset: number, sizeBytes: number): void {
    const range = this.#base?.range(regionId, offset, sizeBytes);
    if (range !== undefined) this.hashes.range(regionId, offset, sizeBytes).set(range);
  }
}
