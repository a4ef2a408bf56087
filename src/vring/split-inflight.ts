import { StateError } from "../errors.ts";
import {
  BYTE_SPLIT_INFLIGHT,
  HALF_INFLIGHT_DESC_NUM,
  HALF_INFLIGHT_VERSION,
  HALF_SPLIT_LAST_BATCH_HEAD,
  HALF_SPLIT_NEXT,
  HALF_SPLIT_USED_IDX,
  INFLIGHT_VERSION,
  SPLIT_ENTRY_BYTES,
  SPLIT_HEADER_BYTES,
  WORD_SPLIT_COUNTER,
} from "./ring-offsets.ts";

/**
 * What a split ring has in flight, in memory that outlives this process (vhost-user spec, "Inflight I/O tracking").
 * The stores that recovery depends on go through Atomics, so they happen in the order in which they are written here.
 */
export class SplitInflight {
  readonly #size: number;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;
  /** The heads of the batch that was not published yet. Our own copy: the peer can write to the region. */
  readonly #batch: Uint16Array;
  #batchCount = 0;
  #counter = 0;

  /** @param size entries of the region, at least the ring's size */
  constructor(buffer: ArrayBuffer, size: number) {
    this.#size = size;
    this.#bytes = new Uint8Array(buffer);
    this.#halves = new Uint16Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#batch = new Uint16Array(size);
  }

  static sizeBytes(size: number): number {
    return SPLIT_HEADER_BYTES + size * SPLIT_ENTRY_BYTES;
  }

  /**
   * Called once, when the ring opens. Prepares a new region, or settles the last batch of an old one.
   * @returns the heads that were popped and not completed, in the order in which they were popped
   * @throws StateError when the region contradicts the ring
   */
  recover(usedIndex: number, ringSize: number): number[] {
    const halves = this.#halves;
    if (ringSize > this.#size) {
      throw new StateError(`the inflight region has ${this.#size} entries, the ring ${ringSize} descriptors`);
    }
    if (Atomics.load(halves, HALF_INFLIGHT_VERSION) === 0) {
      halves[HALF_INFLIGHT_DESC_NUM] = this.#size;
      halves[HALF_SPLIT_USED_IDX] = usedIndex;
      Atomics.store(halves, HALF_INFLIGHT_VERSION, INFLIGHT_VERSION);
      return [];
    }
    this.#checkHeader();
    this.#settleLastBatch(usedIndex);
    const heads: { head: number; counter: number }[] = [];
    for (let head = 0; head < ringSize; head++) {
      if (this.#bytes[this.#byte(head)] !== 0) heads.push({ head, counter: this.#counterOf(head) });
    }
    heads.sort((a, b) => a.counter - b.counter);
    this.#counter = (heads.at(-1)?.counter ?? -1) + 1;
    if (!Number.isSafeInteger(this.#counter))
      throw new StateError("the inflight region's counter is above 2^53");
    return heads.map((entry) => entry.head);
  }

  /** The head was popped. */
  begin(head: number): void {
    const word = this.#byte(head) / 4 + WORD_SPLIT_COUNTER;
    const counter = this.#counter++;
    this.#words[word] = counter >>> 0;
    this.#words[word + 1] = Math.floor(counter / 0x100000000);
    Atomics.store(this.#bytes, this.#byte(head) + BYTE_SPLIT_INFLIGHT, 1);
  }

  /** The head is completed, and not yet visible to the driver. */
  complete(head: number): void {
    const halves = this.#halves;
    halves[this.#byte(head) / 2 + HALF_SPLIT_NEXT] = halves[HALF_SPLIT_LAST_BATCH_HEAD]!;
    Atomics.store(halves, HALF_SPLIT_LAST_BATCH_HEAD, head);
    this.#batch[this.#batchCount++] = head;
  }

  /** The used index was stored: the whole batch is visible to the driver. */
  commit(usedIndex: number): void {
    for (let i = 0; i < this.#batchCount; i++) Atomics.store(this.#bytes, this.#byte(this.#batch[i]!), 0);
    this.#batchCount = 0;
    Atomics.store(this.#halves, HALF_SPLIT_USED_IDX, usedIndex);
  }

  #checkHeader(): void {
    const version = this.#halves[HALF_INFLIGHT_VERSION]!;
    const entries = this.#halves[HALF_INFLIGHT_DESC_NUM]!;
    if (version === INFLIGHT_VERSION && entries === this.#size) return;
    throw new StateError(
      `an inflight region of version ${version} with ${entries} entries; expected ${this.#size}`,
    );
  }

  /** A crash between the store of the used index and `commit` leaves the batch marked: the difference tells its size. */
  #settleLastBatch(usedIndex: number): void {
    const batch = (usedIndex - this.#halves[HALF_SPLIT_USED_IDX]!) & 0xffff;
    const possible = batch <= this.#size;
    // With nothing in flight it is a region that was kept over a reset of the ring, and there is nothing to settle.
    if (!possible && this.#anyInFlight()) {
      throw new StateError(`the used index ${usedIndex} is ${batch} ahead of the inflight region's`);
    }
    let head = this.#halves[HALF_SPLIT_LAST_BATCH_HEAD]!;
    for (let i = 0; possible && i < batch; i++) {
      if (head >= this.#size) throw new StateError(`the inflight region names head ${head} of ${this.#size}`);
      Atomics.store(this.#bytes, this.#byte(head), 0);
      head = this.#halves[this.#byte(head) / 2 + HALF_SPLIT_NEXT]!;
    }
    Atomics.store(this.#halves, HALF_SPLIT_USED_IDX, usedIndex);
  }

  #anyInFlight(): boolean {
    for (let head = 0; head < this.#size; head++) if (this.#bytes[this.#byte(head)] !== 0) return true;
    return false;
  }

  #counterOf(head: number): number {
    const word = this.#byte(head) / 4 + WORD_SPLIT_COUNTER;
    return this.#words[word + 1]! * 0x100000000 + this.#words[word]!;
  }

  #byte(head: number): number {
    return SPLIT_HEADER_BYTES + head * SPLIT_ENTRY_BYTES;
  }
}
