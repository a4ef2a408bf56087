/**
 * Where pages are that a file holds already: by the hash of a page, its address in this process and its place in a frame.
 * One thread adds, all look; a hit is only a hint, the bytes behind the addresses decide.
 */
import { MAX_SNAPSHOT_PAGE_TABLE_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { isSameMemory } from "../../src/sys/mod.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";

/** Hash, page number, frame, then the page within it with the page number's upper bits; 0 while free. */
const ENTRY_WORDS = 4;
const MAX_PROBES = 8;
const IN_USE = 0x8000_0000;

/** A page of a frame; `frameNumber` is the adder's. */
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

  /** A page with the same bytes. `bytes` are those at `address`. */
  find(bytes: Uint8Array, address: number): PagePlace | undefined {
    this.#hash[0] = xxh3(bytes);
    const [low, high] = [this.#halves[0] as number, (this.#halves[1] as number) | 0];
    for (let probe = 0; probe < MAX_PROBES; probe += 1) {
      const at = ((low + probe) & this.#mask) * ENTRY_WORDS;
      const last = Atomics.load(this.#words, at + 3) >>> 0;
      if (last === 0) return undefined;
      if (Atomics.load(this.#words, at) !== high) continue;
      const number = ((last & 0x7fff_ff00) / 256) * 2 ** 32 + (Atomics.load(this.#words, at + 1) >>> 0);
      if (!isSameMemory(number * MEMORY_PAGE_BYTES, address, MEMORY_PAGE_BYTES)) continue;
      return { frameNumber: Atomics.load(this.#words, at + 2), page: last & 0xff };
    }
    return undefined;
  }

  /** The page must stay as it is, and mapped, for as long as anybody looks. */
  add(bytes: Uint8Array, address: number, { frameNumber, page }: PagePlace): void {
    this.#hash[0] = xxh3(bytes);
    const [low, high] = [this.#halves[0] as number, (this.#halves[1] as number) | 0];
    const number = address / MEMORY_PAGE_BYTES;
    for (let probe = 0; probe < MAX_PROBES; probe += 1) {
      const at = ((low + probe) & this.#mask) * ENTRY_WORDS;
      if (Atomics.load(this.#words, at + 3) !== 0) continue;
      Atomics.store(this.#words, at, high);
      Atomics.store(this.#words, at + 1, number | 0);
      Atomics.store(this.#words, at + 2, frameNumber);
      // The last word makes it an entry.
      Atomics.store(this.#words, at + 3, IN_USE | (Math.floor(number / 2 ** 32) << 8) | page | 0);
      return;
    }
  }
}
