import { PAGE_BYTES } from "./memory-region.ts";

/** A range of pages, in bytes. */
export interface PageRun {
  readonly offset: number;
  readonly sizeBytes: number;
}

/**
 * Pages of a range of memory, a bit for each, as a dirty log has them: page p at bit p % 8 of byte p / 8.
 *
 * @example
 * const dirty = bitmap.take();
 * for (const { offset, sizeBytes } of dirty.runs()) send(memory.subarray(offset, offset + sizeBytes));
 */
export class PageSet {
  readonly pageCount: number;
  /** Whole words: what lies beyond the last page is never set. */
  readonly words: Uint32Array<ArrayBuffer>;

  /** Empty, for memory of so many bytes. */
  constructor(readonly memoryBytes: number) {
    this.pageCount = Math.ceil(memoryBytes / PAGE_BYTES);
    this.words = new Uint32Array(Math.ceil(this.pageCount / 32));
  }

  /** A copy of somebody's bitmap. Bits beyond the memory are dropped. */
  static of(memoryBytes: number, bitmap: Uint8Array): PageSet {
    const set = new PageSet(memoryBytes);
    set.bytes.set(bitmap.subarray(0, set.bytes.length));
    set.#dropBeyond();
    return set;
  }

  /** The bits, to be sent or stored. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.words.buffer);
  }

  has(page: number): boolean {
    return (this.words[page >>> 5]! & (1 << (page & 31))) !== 0;
  }

  /** Every page that the range touches. */
  add(offset: number, sizeBytes: number): void {
    const end = Math.min(Math.ceil((offset + sizeBytes) / PAGE_BYTES), this.pageCount);
    for (let page = Math.floor(offset / PAGE_BYTES); page < end; page += 1)
      this.words[page >>> 5]! |= 1 << (page & 31);
  }

  addAll(other: PageSet): void {
    for (const [index, word] of other.words.entries()) if (word !== 0) this.words[index]! |= word;
    this.#dropBeyond();
  }

  clear(): void {
    this.words.fill(0);
  }

  /** How many pages are in it. */
  get size(): number {
    let count = 0;
    for (let word of this.words) for (; word !== 0; word &= word - 1) count += 1;
    return count;
  }

  /** What is in it, in order; neighbours as one run. */
  *runs(): Generator<PageRun, void> {
    for (let page = this.#next(0, true); page < this.pageCount; ) {
      const end = this.#next(page, false);
      yield { offset: page * PAGE_BYTES, sizeBytes: (end - page) * PAGE_BYTES };
      page = this.#next(end, true);
    }
  }

  /** The first page from `page` on that is in it, or is not; whole words are skipped. */
  #next(page: number, isIn: boolean): number {
    const skipped = isIn ? 0 : 0xffff_ffff;
    for (let at = page; at < this.pageCount; ) {
      if ((at & 31) === 0 && this.words[at >>> 5] === skipped) at += 32;
      else if (this.has(at) === isIn) return at;
      else at += 1;
    }
    return this.pageCount;
  }

  #dropBeyond(): void {
    const used = this.pageCount & 31;
    if (used !== 0) this.words[this.words.length - 1]! &= (1 << used) - 1;
  }
}
