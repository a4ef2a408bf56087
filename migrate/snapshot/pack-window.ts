import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { frameBoundBytes, type Zstd } from "./compression.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";
import { PageHasher, type PageHashes } from "./page-hashes.ts";
import type { PagePlace, PageTable } from "./page-table.ts";
import type { ParentPages } from "./parent-pages.ts";
import { zeroRuns } from "./zero-runs.ts";

/** A part of a window: zeros, pages that are as in the parent, pages that the file has, or bytes of the window's frame from `skipBytes` on. */
export type PackedRun = { readonly offset: number; readonly sizeBytes: number } & (
  | { readonly kind: "zero" | "parent" }
  | { readonly kind: "duplicate"; readonly place: PagePlace }
  | { readonly kind: "data"; readonly skipBytes: number }
);

export interface PackedWindow {
  readonly runs: readonly PackedRun[];
  /** At the start of the room; absent where no run is data. */
  readonly frame:
    | { readonly sizeBytes: number; readonly plainBytes: number; readonly checksum: bigint }
    | undefined;
}

export const WINDOW_PAGES = MAX_SNAPSHOT_FRAME_BYTES / MEMORY_PAGE_BYTES;
/** Where a window's frame always fits. */
export const WINDOW_ROOM_BYTES = frameBoundBytes(MAX_SNAPSHOT_FRAME_BYTES);

/** Memory that becomes one frame at most. */
export interface PlainWindow {
  readonly regionId: number;
  /** From the start of the region. */
  readonly offset: number;
  readonly plain: Uint8Array;
  /** Of `plain`, where duplicates are looked up; else 0. */
  readonly address: number;
  /** That its frame gets, if it has one. */
  readonly frameNumber: number;
  /** For each page, 1 where it is known to be as in the parent; then nothing is compared. */
  readonly unchanged: Uint8Array | undefined;
}

interface WindowRun {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly kind: "zero" | "parent" | "data";
}

export interface PackerSetup {
  /** Where duplicates are looked up, and pages added. */
  readonly pages?: PageTable | undefined;
  /** What the window is compared with: the bytes of the parent, or its hashes. */
  readonly parent?: ParentPages | undefined;
  readonly parentHashes?: PageHashes | undefined;
  /** Pages are hashed with it. */
  readonly hashKey?: Uint8Array | undefined;
}

/**
 * Cuts up to 1 MiB of pages into runs, and compresses what is new in it into `room`, as one frame. Its pages are then known
 * to all who look.
 */
export class WindowPacker {
  readonly #zstd: Zstd;
  readonly #pages: PageTable | undefined;
  readonly #parent: ParentPages | undefined;
  readonly #hasher: PageHasher | undefined;
  readonly #parentHashes: PageHashes | undefined;
  /** Of the pages of the window that was packed last, two words each, where pages are hashed. */
  readonly pageHashes = new BigUint64Array(2 * WINDOW_PAGES);
  #packed: Uint8Array | undefined;
  /** Of the pages of the window at hand that are new. */
  readonly #hashes: bigint[] = [];

  constructor(zstd: Zstd, { pages, parent, hashKey, parentHashes }: PackerSetup = {}) {
    this.#zstd = zstd;
    this.#pages = pages;
    this.#parent = parent;
    this.#hasher = hashKey && new PageHasher(hashKey);
    this.#parentHashes = parentHashes;
  }

  pack(window: PlainWindow, room: Uint8Array): PackedWindow {
    const runs: PackedRun[] = [];
    this.#hashes.length = 0;
    let plainBytes = 0;
    for (const run of this.#runs(window)) {
      if (run.kind !== "data") {
        runs.push({ offset: run.offset, sizeBytes: run.sizeBytes, kind: run.kind });
        continue;
      }
      for (const { offset, sizeBytes, place } of this.#duplicates(window, run)) {
        if (place !== undefined) runs.push({ offset, sizeBytes, kind: "duplicate", place });
        else {
          runs.push({ offset, sizeBytes, kind: "data", skipBytes: plainBytes });
          plainBytes += sizeBytes;
        }
      }
    }
    if (plainBytes === 0) return { runs, frame: undefined };
    const plain = this.#dataOf(window.plain, runs, plainBytes);
    const frame = { sizeBytes: this.#zstd.compress(room, plain), plainBytes, checksum: xxh3(plain) };
    if (window.address !== 0) this.#addPages(window, runs);
    return { runs, frame };
  }

  #addPages({ address, frameNumber }: PlainWindow, runs: readonly PackedRun[]): void {
    let index = 0;
    for (const run of runs) {
      if (run.kind !== "data") continue;
      for (let at = 0; at < run.sizeBytes; at += MEMORY_PAGE_BYTES) {
        const page = (run.skipBytes + at) / MEMORY_PAGE_BYTES;
        this.#pages?.add(this.#hashes[index] as bigint, address + run.offset + at, { frameNumber, page });
        index += 1;
      }
    }
  }

  /** What is as in the parent, what is zero, and the rest. */
  #runs(window: PlainWindow): WindowRun[] {
    const { plain, regionId, offset } = window;
    this.#hashPages(window);
    const same = window.unchanged ?? this.#sameByHash(window) ?? this.#parent?.same(regionId, offset, plain);
    if (same === undefined) return zerosAndData(plain, 0, plain.length);
    const runs: WindowRun[] = [];
    for (let page = 0; page < same.length; ) {
      const first = page;
      while (page < same.length && same[page] === same[first]) page += 1;
      const [from, to] = [first * MEMORY_PAGE_BYTES, page * MEMORY_PAGE_BYTES];
      if (same[first] === 1) runs.push({ offset: from, sizeBytes: to - from, kind: "parent" });
      else runs.push(...zerosAndData(plain, from, to));
    }
    return runs;
  }

  #hashPages({ plain, unchanged }: PlainWindow): void {
    const hasher = this.#hasher;
    if (hasher === undefined) return;
    for (let page = 0; page * MEMORY_PAGE_BYTES < plain.length; page += 1) {
      if (unchanged?.[page] === 1) continue;
      const at = page * MEMORY_PAGE_BYTES;
      hasher.hash(plain.subarray(at, at + MEMORY_PAGE_BYTES), this.pageHashes, page);
    }
  }

  #sameByHash({ plain, regionId, offset }: PlainWindow): Uint8Array | undefined {
    const theirs = this.#parentHashes?.range(regionId, offset, plain.length);
    if (theirs === undefined) return undefined;
    const ours = this.pageHashes;
    return Uint8Array.from({ length: theirs.length / 2 }, (_, page) =>
      ours[2 * page] === theirs[2 * page] && ours[2 * page + 1] === theirs[2 * page + 1] ? 1 : 0,
    );
  }

  /** Neighbours in the window that are neighbours in a frame, too, are one run. */
  #duplicates(
    { plain, address, frameNumber }: PlainWindow,
    { offset, sizeBytes }: WindowRun,
  ): { offset: number; sizeBytes: number; place: PagePlace | undefined }[] {
    const pages = this.#pages;
    if (pages === undefined || address === 0) return [{ offset, sizeBytes, place: undefined }];
    const parts: { offset: number; sizeBytes: number; place: PagePlace | undefined }[] = [];
    for (let at = offset; at < offset + sizeBytes; at += MEMORY_PAGE_BYTES) {
      const hash = xxh3(plain.subarray(at, at + MEMORY_PAGE_BYTES));
      const place = pages.find(hash, address + at, frameNumber);
      if (place === undefined) this.#hashes.push(hash);
      const last = parts.at(-1);
      const isNext =
        place === undefined
          ? last !== undefined && last.place === undefined
          : last?.place?.frameNumber === place.frameNumber &&
            last.place.page + last.sizeBytes / MEMORY_PAGE_BYTES === place.page;
      if (last !== undefined && isNext) last.sizeBytes += MEMORY_PAGE_BYTES;
      else parts.push({ offset: at, sizeBytes: MEMORY_PAGE_BYTES, place });
    }
    return parts;
  }

  /** The data of all runs, one after another; without a copy where it is one piece. */
  #dataOf(window: Uint8Array, runs: readonly PackedRun[], plainBytes: number): Uint8Array {
    const data = runs.filter((run) => run.kind === "data");
    const [first] = data;
    if (first !== undefined && data.length === 1)
      return window.subarray(first.offset, first.offset + plainBytes);
    this.#packed ??= new Uint8Array(MAX_SNAPSHOT_FRAME_BYTES);
    for (const { offset, sizeBytes, skipBytes } of data) {
      this.#packed.set(window.subarray(offset, offset + sizeBytes), skipBytes);
    }
    return this.#packed.subarray(0, plainBytes);
  }
}

function zerosAndData(window: Uint8Array, from: number, to: number): WindowRun[] {
  return zeroRuns(window.subarray(from, to)).map(({ offset, sizeBytes, isZero }) => {
    return { offset: from + offset, sizeBytes, kind: isZero ? "zero" : "data" };
  });
}
