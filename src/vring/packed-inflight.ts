import { StateError } from "../errors.ts";
import { RingError } from "./ring-error.ts";
import type { PackedBase } from "./ring-layout.ts";
import {
  BYTE_PACKED_INFLIGHT,
  BYTE_PACKED_OLD_USED_WRAP,
  BYTE_PACKED_USED_WRAP,
  DESC_F_AVAIL,
  DESC_F_USED,
  HALF_INFLIGHT_DESC_NUM,
  HALF_INFLIGHT_VERSION,
  HALF_PACKED_FREE_HEAD,
  HALF_PACKED_LAST,
  HALF_PACKED_NEXT,
  HALF_PACKED_NUM,
  HALF_PACKED_OLD_FREE_HEAD,
  HALF_PACKED_OLD_USED_IDX,
  HALF_PACKED_USED_IDX,
  INFLIGHT_VERSION,
  LONG_PACKED_POSITIONS,
  PACKED_ENTRY_BYTES,
  PACKED_HEADER_BYTES,
  WORD_PACKED_ADDRESS,
  WORD_PACKED_COUNTER,
  WORD_PACKED_ID_FLAGS,
  WORD_PACKED_LENGTH,
} from "./ring-offsets.ts";

/** What recovery found: where the ring stands, and the entries to hand out again, oldest first. */
export interface PackedRecovery {
  readonly base: PackedBase;
  readonly entries: readonly number[];
}

/**
 * What a packed ring has in flight (vhost-user spec, "Inflight I/O tracking"). Since completions overwrite descriptors,
 * the region keeps copies of them, in lists that come from a free list.
 *
 * The free list and used position exist twice: the plain ones run ahead while a batch is published, the `old` ones follow
 * when it is done. The peer can write to the region, so every index that is read from it is checked.
 */
export class PackedInflight {
  readonly #size: number;
  readonly #bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #words: Uint32Array;
  readonly #longs: BigUint64Array;
  /** Heads of the batch that is being published. */
  readonly #batch: Uint16Array;
  #batchCount = 0;
  #counter = 0;
  #staged = 0;
  #stagedLast = 0;

  /** @param size entries of the region, at least the ring's size */
  constructor(buffer: ArrayBuffer, size: number) {
    this.#size = size;
    this.#bytes = new Uint8Array(buffer);
    this.#halves = new Uint16Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#longs = new BigUint64Array(buffer, 0, PACKED_HEADER_BYTES / 8);
    this.#batch = new Uint16Array(size);
  }

  static sizeBytes(size: number): number {
    return PACKED_HEADER_BYTES + size * PACKED_ENTRY_BYTES;
  }

  /**
   * Called once, when the ring opens. Prepares a new region from `base`, or settles the last batch of an old one, whose
   * positions then replace `base`: after a crash no one else knows the used position of a packed ring.
   * @param flagsAt the flags of a descriptor of the ring
   * @throws StateError, RingError when the region contradicts the ring or itself
   */
  recover(base: PackedBase, ringSize: number, flagsAt: (index: number) => number): PackedRecovery {
    if (ringSize > this.#size) {
      throw new StateError(`the inflight region has ${this.#size} entries, the ring ${ringSize} descriptors`);
    }
    if (Atomics.load(this.#halves, HALF_INFLIGHT_VERSION) === 0) {
      this.#format(base);
      return { base, entries: [] };
    }
    const version = this.#halves[HALF_INFLIGHT_VERSION]!;
    const count = this.#halves[HALF_INFLIGHT_DESC_NUM]!;
    if (version !== INFLIGHT_VERSION || count !== this.#size) {
      throw new StateError(
        `an inflight region of version ${version} with ${count} entries; expected ${this.#size}`,
      );
    }
    this.#settleLastBatch(ringSize, flagsAt);
    this.#clearFreeEntries();
    return this.#collect(ringSize);
  }

  /** Starts to record a chain. Nothing counts before `begin`. */
  startStaging(): void {
    this.#staged = this.#halves[HALF_PACKED_FREE_HEAD]!;
  }

  /** Records one descriptor as it was read: three words, and the last one with id and flags. */
  stage(addressLow: number, addressHigh: number, length: number, idAndFlags: number): void {
    const entry = this.#checked(this.#staged);
    const word = this.#byte(entry) / 4;
    this.#words[word + WORD_PACKED_ID_FLAGS] = idAndFlags;
    this.#words[word + WORD_PACKED_LENGTH] = length;
    this.#words[word + WORD_PACKED_ADDRESS] = addressLow;
    this.#words[word + WORD_PACKED_ADDRESS + 1] = addressHigh;
    this.#stagedLast = entry;
    this.#staged = this.#halves[this.#byte(entry) / 2 + HALF_PACKED_NEXT]!;
  }

  /** The chain of `count` staged descriptors was popped. Returns its entry. */
  begin(count: number): number {
    const halves = this.#halves;
    const entry = this.#checked(halves[HALF_PACKED_OLD_FREE_HEAD]!);
    const half = this.#byte(entry) / 2;
    const word = this.#byte(entry) / 4 + WORD_PACKED_COUNTER;
    const counter = this.#counter++;
    halves[half + HALF_PACKED_LAST] = this.#stagedLast;
    halves[half + HALF_PACKED_NUM] = count;
    this.#words[word] = counter >>> 0;
    this.#words[word + 1] = Math.floor(counter / 0x100000000);
    Atomics.store(this.#bytes, this.#byte(entry) + BYTE_PACKED_INFLIGHT, 1);
    Atomics.store(halves, HALF_PACKED_FREE_HEAD, this.#staged);
    // From here on the entry is no longer in the old free list, which is what recovery goes by.
    Atomics.store(halves, HALF_PACKED_OLD_FREE_HEAD, this.#staged);
    return entry;
  }

  /** First of the two halves of publishing a batch, before the ring is written: the entry joins the free list. */
  release(entry: number): void {
    const halves = this.#halves;
    const last = this.#checked(halves[this.#byte(entry) / 2 + HALF_PACKED_LAST]!);
    halves[this.#byte(last) / 2 + HALF_PACKED_NEXT] = halves[HALF_PACKED_FREE_HEAD]!;
    Atomics.store(halves, HALF_PACKED_FREE_HEAD, entry);
    this.#batch[this.#batchCount++] = entry;
  }

  /** After all `release`: where the used position will be. */
  setUsed(usedIndex: number, usedWrap: boolean): void {
    this.#storePositions(
      usedIndex,
      usedWrap ? 1 : 0,
      this.#halves[HALF_PACKED_OLD_USED_IDX]!,
      this.#bytes[BYTE_PACKED_OLD_USED_WRAP]!,
    );
  }

  /** The second half: the batch is visible to the driver. */
  commit(): void {
    for (let i = 0; i < this.#batchCount; i++) {
      Atomics.store(this.#bytes, this.#byte(this.#batch[i]!) + BYTE_PACKED_INFLIGHT, 0);
    }
    this.#batchCount = 0;
    this.#copyForward();
  }

  /** Calls `visit` for each recorded descriptor of an entry, in order. */
  eachDescriptor(
    entry: number,
    visit: (low: number, high: number, length: number, idAndFlags: number) => boolean,
  ): boolean {
    let at = entry;
    const count = this.ringDescriptors(entry);
    for (let i = 0; i < count; i++) {
      const word = this.#byte(this.#checked(at)) / 4;
      const low = this.#words[word + WORD_PACKED_ADDRESS]!;
      const high = this.#words[word + WORD_PACKED_ADDRESS + 1]!;
      if (
        !visit(low, high, this.#words[word + WORD_PACKED_LENGTH]!, this.#words[word + WORD_PACKED_ID_FLAGS]!)
      ) {
        return false;
      }
      at = this.#halves[this.#byte(at) / 2 + HALF_PACKED_NEXT]!;
    }
    return true;
  }

  /** Descriptors of the ring that an entry stands for. */
  ringDescriptors(entry: number): number {
    const count = this.#halves[this.#byte(entry) / 2 + HALF_PACKED_NUM]!;
    if (count >= 1 && count <= this.#size) return count;
    throw new RingError(`the inflight region's entry ${entry} has ${count} descriptors of ${this.#size}`);
  }

  #format(base: PackedBase): void {
    const halves = this.#halves;
    halves[HALF_INFLIGHT_DESC_NUM] = this.#size;
    // The end of the free list is the index one past the last entry.
    for (let entry = 0; entry < this.#size; entry++) {
      halves[this.#byte(entry) / 2 + HALF_PACKED_NEXT] = entry + 1;
    }
    halves[HALF_PACKED_FREE_HEAD] = 0;
    this.setUsed(base.usedIndex, base.usedWrap);
    this.#copyForward();
    Atomics.store(halves, HALF_INFLIGHT_VERSION, INFLIGHT_VERSION);
  }

  /** A batch that was begun counts as published exactly when its first descriptor is no longer the driver's. */
  #settleLastBatch(ringSize: number, flagsAt: (index: number) => number): void {
    const halves = this.#halves;
    const bytes = this.#bytes;
    const oldIndex = halves[HALF_PACKED_OLD_USED_IDX]!;
    const oldWrap = bytes[BYTE_PACKED_OLD_USED_WRAP] !== 0;
    if (oldIndex >= ringSize || halves[HALF_PACKED_USED_IDX]! >= ringSize) {
      throw new StateError(`the inflight region's used position lies outside a ring of ${ringSize}`);
    }
    // The wrap counters count too: a batch as long as the ring ends where it began (the spec compares the index only).
    const begun =
      halves[HALF_PACKED_USED_IDX] !== oldIndex || (bytes[BYTE_PACKED_USED_WRAP] !== 0) !== oldWrap;
    if (begun) {
      const available = oldWrap ? DESC_F_AVAIL : DESC_F_USED;
      const published = (flagsAt(oldIndex) & (DESC_F_AVAIL | DESC_F_USED)) !== available;
      if (published) this.#copyForward();
    }
    Atomics.store(halves, HALF_PACKED_FREE_HEAD, halves[HALF_PACKED_OLD_FREE_HEAD]!);
    this.setUsed(halves[HALF_PACKED_OLD_USED_IDX]!, bytes[BYTE_PACKED_OLD_USED_WRAP] !== 0);
  }

  #clearFreeEntries(): void {
    let entry = this.#halves[HALF_PACKED_FREE_HEAD]!;
    for (let i = 0; entry < this.#size; i++) {
      if (i === this.#size) throw new StateError("the inflight region's free list has a loop");
      Atomics.store(this.#bytes, this.#byte(entry) + BYTE_PACKED_INFLIGHT, 0);
      entry = this.#halves[this.#byte(entry) / 2 + HALF_PACKED_NEXT]!;
    }
  }

  /** What was popped is what was completed plus what is in flight. */
  #collect(ringSize: number): PackedRecovery {
    const found: { entry: number; counter: number }[] = [];
    let descriptors = 0;
    for (let entry = 0; entry < this.#size; entry++) {
      if (this.#bytes[this.#byte(entry) + BYTE_PACKED_INFLIGHT] === 0) continue;
      const word = this.#byte(entry) / 4 + WORD_PACKED_COUNTER;
      found.push({ entry, counter: this.#words[word + 1]! * 0x100000000 + this.#words[word]! });
      descriptors += this.ringDescriptors(entry);
    }
    if (descriptors > ringSize) {
      throw new StateError(`the inflight region holds ${descriptors} descriptors of a ring of ${ringSize}`);
    }
    found.sort((a, b) => a.counter - b.counter);
    this.#counter = (found.at(-1)?.counter ?? -1) + 1;
    if (!Number.isSafeInteger(this.#counter))
      throw new StateError("the inflight region's counter is above 2^53");
    const usedIndex = this.#halves[HALF_PACKED_USED_IDX]!;
    const usedWrap = this.#bytes[BYTE_PACKED_USED_WRAP] !== 0;
    const next = usedIndex + descriptors;
    const wrapped = next >= ringSize;
    return {
      base: {
        availableIndex: wrapped ? next - ringSize : next,
        availableWrap: wrapped ? !usedWrap : usedWrap,
        usedIndex,
        usedWrap,
      },
      entries: found.map((item) => item.entry),
    };
  }

  /** The old positions follow. */
  #copyForward(): void {
    const halves = this.#halves;
    Atomics.store(halves, HALF_PACKED_OLD_FREE_HEAD, halves[HALF_PACKED_FREE_HEAD]!);
    const index = halves[HALF_PACKED_USED_IDX]!;
    const wrap = this.#bytes[BYTE_PACKED_USED_WRAP]!;
    this.#storePositions(index, wrap, index, wrap);
  }

  /** An index and its wrap counter mean something together only, so all four change in one store. */
  #storePositions(index: number, wrap: number, oldIndex: number, oldWrap: number): void {
    const indices = BigInt(index) | (BigInt(oldIndex) << 16n);
    Atomics.store(
      this.#longs,
      LONG_PACKED_POSITIONS,
      indices | (BigInt(wrap) << 32n) | (BigInt(oldWrap) << 40n),
    );
  }

  #checked(entry: number): number {
    if (entry < this.#size) return entry;
    throw new RingError(`the inflight region links to entry ${entry} of ${this.#size}`);
  }

  #byte(entry: number): number {
    return PACKED_HEADER_BYTES + entry * PACKED_ENTRY_BYTES;
  }
}
