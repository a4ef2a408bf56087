/** What a sender knows of the pages that the receiver has. Each stream has its own, since only its own order is certain. */
import { randomBytes } from "node:crypto";
import { MEMORY_PAGE_BYTES } from "../snapshot/mod.ts";

const TABLE_ENTRIES = 1 << 18;
const WORDS_PER_PAGE = MEMORY_PAGE_BYTES / 4;

export interface PagePlace {
  readonly regionId: number;
  readonly offset: number;
}

/**
 * Where the receiver has a page of the same content, in the first pass only: no page comes twice in it, so what was sent is
 * still there. The hash has a secret seed, and the receiver checks what it gets by another.
 */
export class DuplicateTable {
  readonly #seed = randomBytes(8).readBigUInt64LE();
  readonly #hashes = new BigUint64Array(TABLE_ENTRIES);
  readonly #regions = new Uint32Array(TABLE_ENTRIES);
  readonly #offsets = new Float64Array(TABLE_ENTRIES);
  readonly #windows = new Uint32Array(TABLE_ENTRIES);
  #window = 0;

  /** What comes next is another window: the receiver looks at its own memory, where a window comes as a whole. */
  nextWindow(): void {
    this.#window += 1;
  }

  /** The place of an equal page of an earlier window; else this one is noted. */
  findOrAdd(page: Uint8Array, regionId: number, offset: number): PagePlace | undefined {
    const hash = Bun.hash.xxHash3(page, this.#seed) | 1n;
    const slot = Number(hash >> 46n);
    if (this.#hashes[slot] === hash) {
      if (this.#windows[slot] === this.#window) return undefined;
      return { regionId: this.#regions[slot] as number, offset: this.#offsets[slot] as number };
    }
    this.#hashes[slot] = hash;
    this.#regions[slot] = regionId;
    this.#offsets[slot] = offset;
    this.#windows[slot] = this.#window;
    return undefined;
  }
}

/** Pages that were sent more than once, as they were sent last; the oldest make room. */
export class PageCache {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;
  readonly #slots = new Map<string, number>();
  readonly #keys: (string | undefined)[];
  #next = 0;

  constructor(sizeBytes: number) {
    const pages = Math.max(1, Math.floor(sizeBytes / MEMORY_PAGE_BYTES));
    this.#bytes = new Uint8Array(pages * MEMORY_PAGE_BYTES);
    this.#words = new Int32Array(this.#bytes.buffer);
    this.#keys = new Array(pages).fill(undefined);
  }

  /**
   * Keeps the page. True when it was there before and differs little: then `page` is now the XOR with what it was.
   * @param page Its offset in its buffer is a multiple of four.
   */
  exchange(page: Uint8Array, regionId: number, offset: number): boolean {
    const key = `${regionId}:${offset}`;
    const slot = this.#slots.get(key);
    if (slot === undefined) {
      this.#insert(key, page);
      return false;
    }
    const words = new Int32Array(page.buffer, page.byteOffset, WORDS_PER_PAGE);
    const [kept, start] = [this.#words, slot * WORDS_PER_PAGE];
    let equal = 0;
    for (let i = 0; i < WORDS_PER_PAGE; i += 1) if (words[i] === kept[start + i]) equal += 1;
    const isDelta = equal > WORDS_PER_PAGE / 2;
    for (let i = 0; i < WORDS_PER_PAGE; i += 1) {
      const now = words[i] as number;
      if (isDelta) words[i] = now ^ (kept[start + i] as number);
      kept[start + i] = now;
    }
    return isDelta;
  }

  /** The receiver has something else there now. */
  forget(regionId: number, offset: number): void {
    const key = `${regionId}:${offset}`;
    const slot = this.#slots.get(key);
    if (slot === undefined) return;
    this.#slots.delete(key);
    this.#keys[slot] = undefined;
  }

  #insert(key: string, page: Uint8Array): void {
    const slot = this.#next;
    this.#next = (slot + 1) % this.#keys.length;
    const old = this.#keys[slot];
    if (old !== undefined) this.#slots.delete(old);
    this.#keys[slot] = key;
    this.#slots.set(key, slot);
    this.#bytes.set(page, slot * MEMORY_PAGE_BYTES);
  }
}
