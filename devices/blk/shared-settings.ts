import { SECTOR_BYTES } from "./config.ts";

/** GET_ID's answer: a string, padded with NUL. */
export const ID_BYTES = 20;

const WORD = {
  capacityLow: 0,
  capacityHigh: 1,
  capacityVersion: 2,
  writeThrough: 3,
  dirty: 4,
  id: 5,
} as const;
const SHARED_BYTES = WORD.id * 4 + ID_BYTES;

/** What the control thread and the threads that serve requests both know of a disk. */
export class SharedSettings {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Uint32Array;
  readonly #id: Uint8Array;
  #seenVersion = -1;
  #capacityBytes = 0;

  constructor(buffer = new SharedArrayBuffer(SHARED_BYTES)) {
    this.buffer = buffer;
    this.#words = new Uint32Array(buffer, 0, WORD.id);
    this.#id = new Uint8Array(buffer, WORD.id * 4, ID_BYTES);
  }

  /** An odd version says that the words are being written. */
  get capacityBytes(): number {
    const words = this.#words;
    for (;;) {
      const version = Atomics.load(words, WORD.capacityVersion);
      if (version === this.#seenVersion) return this.#capacityBytes;
      if ((version & 1) !== 0) continue;
      const low = Atomics.load(words, WORD.capacityLow);
      const sectors = low + Atomics.load(words, WORD.capacityHigh) * 2 ** 32;
      if (Atomics.load(words, WORD.capacityVersion) !== version) continue;
      this.#seenVersion = version;
      this.#capacityBytes = sectors * SECTOR_BYTES;
    }
  }

  set capacityBytes(value: number) {
    const words = this.#words;
    const sectors = value / SECTOR_BYTES;
    Atomics.add(words, WORD.capacityVersion, 1);
    Atomics.store(words, WORD.capacityLow, sectors >>> 0);
    Atomics.store(words, WORD.capacityHigh, Math.floor(sectors / 2 ** 32));
    Atomics.add(words, WORD.capacityVersion, 1);
  }

  /** Every write is durable before it is acknowledged: no FLUSH was negotiated, or the driver turned the cache off. */
  get writeThrough(): boolean {
    return Atomics.load(this.#words, WORD.writeThrough) === 1;
  }

  set writeThrough(value: boolean) {
    Atomics.store(this.#words, WORD.writeThrough, value ? 1 : 0);
  }

  /** Something was written that the control thread did not make durable since. Set before the write. */
  get isDirty(): boolean {
    return Atomics.load(this.#words, WORD.dirty) === 1;
  }

  set isDirty(value: boolean) {
    Atomics.store(this.#words, WORD.dirty, value ? 1 : 0);
  }

  /** Padded with NUL to 20 bytes. */
  readId(into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) into[i] = Atomics.load(this.#id, i);
  }

  /** @param id at most 20 bytes of UTF-8 */
  writeId(id: string): void {
    const bytes = new TextEncoder().encode(id);
    for (let i = 0; i < ID_BYTES; i++) Atomics.store(this.#id, i, bytes[i] ?? 0);
  }
}
