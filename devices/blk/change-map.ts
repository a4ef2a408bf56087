/** The least part of a disk that is told apart; a larger disk has larger ones. */
const LEAST_PART_BYTES = 64 << 10;
/** 4 MiB of bits: a disk of 2 TiB has parts of 64 KiB. */
const MAX_PARTS = 2 ** 25;
const HEAD = { isOn: 0, isBeyond: 1 } as const;
const HEAD_WORDS = 2;
/** Of one answer; where there are more, neighbours are put together. */
const MAX_RANGES = 4096;

export interface ChangedRange {
  readonly offset: number;
  readonly sizeBytes: number;
}

/**
 * Which parts of a disk were written, for a copy that is made while the disk is in use: a bit for each part, set by whichever
 * thread has ended a write, before that is acknowledged. What is in flight has no bit yet, so only what is asked when nothing
 * is in flight is the last word.
 */
export class ChangeMap {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Uint32Array;
  readonly #partBytes: number;

  /** @param buffer another thread's, of the same capacity */
  constructor(
    readonly capacityBytes: number,
    buffer?: SharedArrayBuffer,
  ) {
    let partBytes = LEAST_PART_BYTES;
    while (capacityBytes / partBytes > MAX_PARTS) partBytes *= 2;
    this.#partBytes = partBytes;
    const words = HEAD_WORDS + Math.ceil(capacityBytes / partBytes / 32);
    this.buffer = buffer ?? new SharedArrayBuffer(words * 4);
    this.#words = new Uint32Array(this.buffer);
  }

  get isOn(): boolean {
    return Atomics.load(this.#words, HEAD.isOn) === 1;
  }

  /** Begins with no part changed. */
  start(): void {
    this.#words.fill(0);
    Atomics.store(this.#words, HEAD.isOn, 1);
  }

  stop(): void {
    Atomics.store(this.#words, HEAD.isOn, 0);
  }

  /** These bytes were written, or may have been. */
  mark(offset: number, sizeBytes: number): void {
    if (!this.isOn || sizeBytes === 0) return;
    const words = this.#words;
    // Behind the end that the disk had once, and in the middle of a part perhaps.
    if (offset + sizeBytes > this.capacityBytes) Atomics.store(words, HEAD.isBeyond, 1);
    const last = Math.floor((offset + sizeBytes - 1) / this.#partBytes);
    for (let part = Math.floor(offset / this.#partBytes); part <= last; part++) {
      const word = HEAD_WORDS + Math.floor(part / 32);
      if (word < words.length) Atomics.or(words, word, 1 << (part & 31));
    }
  }

  /** What was written since the last time, in order; undefined when the disk has grown and was written there. */
  take(): ChangedRange[] | undefined {
    const words = this.#words;
    if (Atomics.load(words, HEAD.isBeyond) !== 0) return undefined;
    const ranges: { offset: number; sizeBytes: number }[] = [];
    for (let word = HEAD_WORDS; word < words.length; word++) {
      const bits = Atomics.load(words, word) === 0 ? 0 : Atomics.exchange(words, word, 0);
      for (let bit = 0; bit < 32; bit++) {
        if ((bits & (1 << bit)) !== 0) this.#add(ranges, (word - HEAD_WORDS) * 32 + bit);
      }
    }
    return coarsen(ranges);
  }

  #add(ranges: { offset: number; sizeBytes: number }[], part: number): void {
    const offset = part * this.#partBytes;
    const sizeBytes = Math.min(this.#partBytes, this.capacityBytes - offset);
    const before = ranges.at(-1);
    if (before !== undefined && before.offset + before.sizeBytes === offset) before.sizeBytes += sizeBytes;
    else ranges.push({ offset, sizeBytes });
  }
}

/** The same ranges and what is between some of them, until they are few. */
function coarsen(ranges: ChangedRange[]): ChangedRange[] {
  if (ranges.length <= MAX_RANGES) return ranges;
  const merged: ChangedRange[] = [];
  const step = Math.ceil(ranges.length / MAX_RANGES);
  for (let i = 0; i < ranges.length; i += step) {
    const { offset } = ranges[i]!;
    const end = ranges[Math.min(i + step, ranges.length) - 1]!;
    merged.push({ offset, sizeBytes: end.offset + end.sizeBytes - offset });
  }
  return merged;
}
