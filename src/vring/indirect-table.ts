import { MAX_INDIRECT_DESCRIPTORS } from "../limits.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import type { Chain } from "./chain.ts";
import { RingError } from "./ring-error.ts";
import {
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_WORDS,
  MAX_ADDRESS_HIGH,
  WORD_ADDRESS_HIGH,
  WORD_ADDRESS_LOW,
  WORD_LAST,
  WORD_LENGTH,
} from "./ring-offsets.ts";

const INITIAL_DESCRIPTORS = 32;

/** The address of a descriptor from its two words. @throws RingError above 2^53 */
export function joinAddress(low: number, high: number): number {
  if (high > MAX_ADDRESS_HIGH) throw new RingError("a descriptor's address is above 2^53");
  return high * 0x100000000 + low;
}

/**
 * Reads tables of indirect descriptors. A table is copied as a whole before anything of it is looked at: so each field is
 * read once, whatever the driver does to it meanwhile, and it may lie across views or regions.
 */
export class IndirectTable {
  readonly #memory: GuestMemory;
  readonly #space: AddressSpace;
  readonly #maxDescriptors: number;
  #words = new Uint32Array(new ArrayBuffer(INITIAL_DESCRIPTORS * DESCRIPTOR_BYTES));
  #bytes = new Uint8Array(this.#words.buffer);
  #count = 0;

  constructor(memory: GuestMemory, space: AddressSpace, queueSize: number) {
    this.#memory = memory;
    this.#space = space;
    this.#maxDescriptors = Math.max(queueSize, MAX_INDIRECT_DESCRIPTORS);
  }

  /** Appends a table whose entries are linked by `next` (split). Returns false on a missing translation. */
  appendLinked(chain: Chain, address: number, sizeBytes: number): boolean {
    if (!this.#load(address, sizeBytes)) return false;
    const words = this.#words;
    let index = 0;
    for (let steps = 0; steps < this.#count; steps++) {
      const flagsAndNext = words[index * DESCRIPTOR_WORDS + WORD_LAST]!;
      if ((flagsAndNext & DESC_F_INDIRECT) !== 0) throw new RingError("an indirect table holds another one");
      if (!this.#appendEntry(chain, index, (flagsAndNext & DESC_F_WRITE) !== 0)) return false;
      if ((flagsAndNext & DESC_F_NEXT) === 0) return true;
      index = flagsAndNext >>> 16;
      if (index >= this.#count)
        throw new RingError("an indirect descriptor links outside its table", { index });
    }
    throw new RingError("an indirect table has a loop");
  }

  /** Appends a table whose entries follow each other (packed). Returns false on a missing translation. */
  appendSequence(chain: Chain, address: number, sizeBytes: number): boolean {
    if (!this.#load(address, sizeBytes)) return false;
    for (let index = 0; index < this.#count; index++) {
      const flags = this.#words[index * DESCRIPTOR_WORDS + WORD_LAST]! >>> 16;
      if ((flags & DESC_F_INDIRECT) !== 0) throw new RingError("an indirect table holds another one");
      if (!this.#appendEntry(chain, index, (flags & DESC_F_WRITE) !== 0)) return false;
    }
    return true;
  }

  #appendEntry(chain: Chain, index: number, writable: boolean): boolean {
    const words = this.#words;
    const word = index * DESCRIPTOR_WORDS;
    const address = joinAddress(words[word + WORD_ADDRESS_LOW]!, words[word + WORD_ADDRESS_HIGH]!);
    return chain.append(this.#space, address, words[word + WORD_LENGTH]!, writable);
  }

  #load(address: number, sizeBytes: number): boolean {
    const count = sizeBytes / DESCRIPTOR_BYTES;
    if (sizeBytes === 0 || !Number.isInteger(count)) {
      throw new RingError(`an indirect table has ${sizeBytes} bytes, which is no multiple of 16`, {
        sizeBytes,
      });
    }
    if (count > this.#maxDescriptors) {
      throw new RingError(`an indirect table has more than ${this.#maxDescriptors} descriptors`, { count });
    }
    if (this.#bytes.length < sizeBytes) {
      this.#words = new Uint32Array(new ArrayBuffer(sizeBytes * 2));
      this.#bytes = new Uint8Array(this.#words.buffer);
    }
    this.#count = count;
    for (let done = 0; done < sizeBytes; ) {
      const part = Math.min(this.#space.contiguousBytes(address + done), sizeBytes - done);
      if (part === 0) {
        if (this.#space.missPending) return false;
        throw new RingError("an indirect table lies outside guest memory", { address, sizeBytes });
      }
      this.#memory.read(this.#space.toGuest(address + done), this.#bytes, done, part);
      done += part;
    }
    return true;
  }
}
