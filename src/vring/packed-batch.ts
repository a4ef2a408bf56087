import type { RingLog } from "./ring-log.ts";
import type { PackedRingMemory } from "./ring-memory.ts";
import {
  DESC_F_AVAIL,
  DESC_F_USED,
  DESC_F_WRITE,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_HALVES,
  DESCRIPTOR_WORDS,
  HALF_PACKED_FLAGS,
  HALF_PACKED_ID,
  WORD_LAST,
  WORD_LENGTH,
} from "./ring-offsets.ts";

/** The completions of a packed ring that wait for `publish`, at most one for each descriptor of the ring. */
export class PackedBatch {
  readonly ids: Uint16Array;
  /** Entries of the inflight region. */
  readonly entries: Uint16Array;
  /** Completions in the batch. */
  count = 0;
  /** Descriptors of the ring that they free. */
  descriptors = 0;
  readonly #size: number;
  readonly #lengths: Uint32Array;
  readonly #descriptors: Uint16Array;

  constructor(size: number) {
    this.#size = size;
    this.ids = new Uint16Array(size);
    this.entries = new Uint16Array(size);
    this.#lengths = new Uint32Array(size);
    this.#descriptors = new Uint16Array(size);
  }

  add(id: number, writtenBytes: number, descriptors: number, entry: number): void {
    const index = this.count++;
    this.ids[index] = id;
    this.entries[index] = entry;
    this.#lengths[index] = writtenBytes;
    this.#descriptors[index] = descriptors;
    this.descriptors += descriptors;
  }

  clear(): void {
    this.count = 0;
    this.descriptors = 0;
  }

  /** Writes the used descriptors from a position on; the flags of the first one last, which makes all of them visible. */
  write(ring: PackedRingMemory, usedIndex: number, usedWrap: boolean, log: RingLog): void {
    const { words, halves } = ring;
    let index = usedIndex;
    let wrap = usedWrap;
    let firstFlags = 0;
    for (let i = 0; i < this.count; i++) {
      const id = this.ids[i]!;
      const length = this.#lengths[i]!;
      const flags = (wrap ? DESC_F_AVAIL | DESC_F_USED : 0) | (length > 0 ? DESC_F_WRITE : 0);
      words[index * DESCRIPTOR_WORDS + WORD_LENGTH] = length;
      if (i === 0) {
        halves[index * DESCRIPTOR_HALVES + HALF_PACKED_ID] = id;
        firstFlags = flags;
      } else {
        words[index * DESCRIPTOR_WORDS + WORD_LAST] = (flags << 16) | id;
        log.mark(index * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
      }
      index += this.#descriptors[i]!;
      if (index >= this.#size) {
        index -= this.#size;
        wrap = !wrap;
      }
    }
    Atomics.store(halves, usedIndex * DESCRIPTOR_HALVES + HALF_PACKED_FLAGS, firstFlags);
    log.mark(usedIndex * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
  }
}
