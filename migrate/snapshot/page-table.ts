/**
 * Where pages are that a file holds already: by the hash of a page, its address in this process and its place in a frame.
 * All threads add and look; a hit is only a hint, the bytes behind the addresses decide.
 */
import { MAX_SNAPSHOT_PAGE_TABLE_BYTES } from "../../src/limits.ts";
import { isSameMemory } from "../../src/sys/mod.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";

/** Hash, page number, frame, then the page within it with the page number's upper bits; 0 while free. */
const ENTRY_WORDS = 4;
const MAX_PROBES = 8;
const IN_USE = 0x8000_0000;
/** Somebody is filling the entry: nobody else looks at it. */
const CLAIMED = 1;

/** A page of a frame. Frames are numbered in the order in which they come into the file. */
export interface PagePlace {
  readonly frameNumber: number;
  readonly page: number;
}

export class PageTable {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #mask: number;
  readonly #hash = new BigUint64Array(1);
  readonly #halves = new Uint32Array(this.#hash.buffer);

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
    this.#mask = this.#words.length / ENTRY_WORDS - 1;
  }

  /** For so many bytes of memory, half full; larger machines than 8 GiB find fewer duplicates. */
  static allocate(memoryBytes: number): PageTable {
    const entries = 2 ** Math.ceil(Math.log2(Math.max((2 * memoryBytes) / MEMORY_PAGE_BYTES, 1024)));
    return new PageTable(
      new SharedArrayBuffer(Math.min(entries * ENTRY_WORDS * 4, MAX_SNAPSHOT_PAGE_TABLE_BYTES)),
    );
  }

  /** Nothing is known any more. Nobody may be looking. */
  clear(): void {
    this.#words.fill(0);
  }

  /**
   * A page with the same bytes, of a frame before `frameNumber`: what comes later into the file cannot be pointed to.
   *
   * @param hash Of the page at `address`.
   */
  find(hash: bigint, address: number, frameNumber: number): PagePlace | undefined {
    this.#hash[0] = hash;
    const [low, high] = [this.#halves[0] as number, (this.#halves[1] as number) | 0];
    for (let probe = 0; probe < MAX_PROBES; probe += 1) {
      const at = ((low + probe) & this.#mask) * ENTRY_WORDS;
      const last = Atomics.load(this.#words, at + 3) >>> 0;
      if (last === 0) return undefined;
      if (last === CLAIMED || Atomics.load(this.#words, at) !== high) continue;
      if (Atomics.load(this.#words, at + 2) >= frameNumber) continue;
      const number = ((last & 0x7fff_ff00) / 256) * 2 ** 32 + (Atomics.load(this.#words, at + 1) >>> 0);
      if (!isSameMemory(number * MEMORY_PAGE_BYTES, address, MEMORY_PAGE_BYTES)) continue;
      return { frameNumber: Atomics.load(this.#words, at + 2), page: last & 0xff };
    }
    return undefined;
  }

  /** The page must stay as it is, and mapped, for as long as anybody looks. */
  add(hash: bigint, address: number, { frameNumber, page }: PagePlace): void {
    this.#hash[0] = hash;
    const [low, high] = [this.#halves[0] as number, (this.#halves[1] as number) | 0];
    const number = address / MEMORY_PAGE_BYTES;
    for (let probe = 0; probe < MAX_PROBES; probe += 1) {
      const at = ((low + probe) & this.#mask) * ENTRY_WORDS;
      if (Atomics.compareExchange(this.#words, at + 3, 0, CLAIMED) !== 0) continue;
      Atomics.store(this.#words, at, high);
      Atomics.store(this.#words, at + 1, number | 0);
      Atomics.store(this.#words, at + 2, frameNumber);
      // The last word makes it an entry.
      Atomics.store(this.#words, at + 3, IN_USE | (Math.floor(number / 2 ** 32) << 8) | page | 0);
      return;
    }
  }
}
