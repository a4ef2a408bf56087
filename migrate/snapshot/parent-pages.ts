import type { FileInput } from "./file-input.ts";
import { FrameReader } from "./frame-reader.ts";
import type { LoadEntry, LoadTable } from "./load-table.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";

const ZERO_PAGE = new Uint8Array(MEMORY_PAGE_BYTES);

/**
 * The memory of the snapshot that a new one is based on. Pages are compared byte by byte with what it holds: hashes would
 * take room in every file, and with bytes there is no collision to make.
 */
export class ParentPages {
  readonly #table: LoadTable;
  readonly #inputs: readonly FileInput[];
  readonly #frames = new FrameReader();

  /** @param table Sorted by region and offset; what it leaves out is zero. */
  constructor(table: LoadTable, inputs: readonly FileInput[]) {
    this.#table = table;
    this.#inputs = inputs;
  }

  /** For each page of a window: 1 if it is as in the parent. @throws FormatError where the parent is damaged */
  same(regionId: number, offset: number, window: Uint8Array): Uint8Array {
    const flags = new Uint8Array(window.length / MEMORY_PAGE_BYTES);
    const isSeen = new Uint8Array(flags.length);
    for (const entry of this.#entries(regionId, offset, window.length)) {
      const bytes = this.#frames.read(this.#inputs[entry.fileNumber] as FileInput, entry);
      const from = Math.max(entry.offset, offset);
      const to = Math.min(entry.offset + entry.sizeBytes, offset + window.length);
      isSeen.fill(1, (from - offset) / MEMORY_PAGE_BYTES, (to - offset) / MEMORY_PAGE_BYTES);
      const theirs = bytes.subarray(from - entry.offset, to - entry.offset);
      const ours = window.subarray(from - offset, to - offset);
      markSame(theirs, ours, flags.subarray((from - offset) / MEMORY_PAGE_BYTES));
    }
    for (const [page, seen] of isSeen.entries()) {
      if (seen === 0 && Buffer.compare(ZERO_PAGE, pageOf(window, page)) === 0) flags[page] = 1;
    }
    return flags;
  }

  /** Those that reach into a range, by their frames, so that each is unpacked once. */
  #entries(regionId: number, offset: number, sizeBytes: number): LoadEntry[] {
    const entries: LoadEntry[] = [];
    for (let index = this.#firstAfter(regionId, offset); index < this.#table.count; index += 1) {
      const entry = this.#table.get(index);
      if (entry.regionId !== regionId || entry.offset >= offset + sizeBytes) break;
      entries.push(entry);
    }
    return entries.sort((a, b) => a.fileNumber - b.fileNumber || a.frame.offset - b.frame.offset);
  }

  /** The first entry that ends after `offset`, by halving. */
  #firstAfter(regionId: number, offset: number): number {
    let [low, high] = [0, this.#table.count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const entry = this.#table.get(middle);
      const isBefore =
        entry.regionId < regionId ||
        (entry.regionId === regionId && entry.offset + entry.sizeBytes <= offset);
      if (isBefore) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function pageOf(window: Uint8Array, page: number): Uint8Array {
  return window.subarray(page * MEMORY_PAGE_BYTES, (page + 1) * MEMORY_PAGE_BYTES);
}

/** By halving what differs: most pages are as they were, and one comparison of many is much cheaper than many of one. */
function markSame(theirs: Uint8Array, ours: Uint8Array, flags: Uint8Array): void {
  const count = ours.length / MEMORY_PAGE_BYTES;
  if (Buffer.compare(theirs, ours) === 0) flags.fill(1, 0, count);
  else if (count > 1) {
    const half = Math.floor(count / 2) * MEMORY_PAGE_BYTES;
    markSame(theirs.subarray(0, half), ours.subarray(0, half), flags);
    markSame(theirs.subarray(half), ours.subarray(half), flags.subarray(half / MEMORY_PAGE_BYTES));
  }
}
