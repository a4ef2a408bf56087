import type { GuestMemory } from "../memory/mod.ts";
import { checkPieces, DriverIndirect, type DriverPiece, writeBuffer } from "./driver-chain.ts";
import type { DriverRing, DriverRingOptions, UsedChain } from "./driver-ring.ts";
import { checkDriverState, type DriverRingState, type OutstandingChain } from "./driver-ring-state.ts";
import { RingError } from "./ring-error.ts";
import type { RingLayout } from "./ring-layout.ts";
import { openPackedRing, type PackedRingMemory } from "./ring-memory.ts";
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_HALVES,
  DESCRIPTOR_WORDS,
  EVENT_F_DESC,
  EVENT_F_DISABLE,
  EVENT_F_ENABLE,
  HALF_PACKED_FLAGS,
  HALF_PACKED_ID,
  WORD_LAST,
  WORD_LENGTH,
  WRAP_BIT,
} from "./ring-offsets.ts";

/** The driver's side of a packed ring (virtio 1.2, 2.8). */
export class PackedDriverRing<Token> implements DriverRing<Token> {
  readonly size: number;
  readonly #ring: PackedRingMemory;
  readonly #eventIdx: boolean;
  readonly #indirect: DriverIndirect | undefined;
  readonly #freeIds: number[];
  readonly #outstanding = new Map<number, OutstandingChain<Token>>();
  #freeDescriptors: number;
  #nextIndex = 0;
  #nextWrap = true;
  #usedIndex = 0;
  #usedWrap = true;
  /** Descriptors made available since `kickNeeded` was asked last. */
  #unkicked = 0;

  constructor(memory: GuestMemory, layout: RingLayout, options: DriverRingOptions<Token>) {
    const { size } = layout;
    const { indirectArea, state } = options;
    if (state !== undefined) checkDriverState(state, size, true);
    this.size = size;
    this.#eventIdx = layout.eventIdx;
    this.#indirect =
      layout.indirect && indirectArea !== undefined
        ? new DriverIndirect(memory, indirectArea, size, true)
        : undefined;
    this.#ring = openPackedRing(memory, memory, layout);
    this.#freeDescriptors = size;
    this.#freeIds =
      state === undefined ? Array.from({ length: size }, (_, i) => size - 1 - i) : [...state.free];
    if (state === undefined) this.#clear();
    else this.#continueFrom(state);
  }

  get freeDescriptors(): number {
    return this.#freeDescriptors;
  }

  get outstanding(): number {
    return this.#outstanding.size;
  }

  add(pieces: readonly DriverPiece[], token: Token): boolean {
    checkPieces(pieces);
    const indirect = this.#indirect?.fits(pieces) ? this.#indirect : undefined;
    const count = indirect === undefined ? pieces.length : 1;
    if (this.#freeDescriptors < count) return false;
    // Never more chains than descriptors, so an id is left.
    const id = this.#freeIds.pop()!;
    if (indirect === undefined) {
      this.#writeChain(pieces, id);
    } else {
      const table = { guestAddress: indirect.write(id, pieces), sizeBytes: pieces.length * DESCRIPTOR_BYTES };
      this.#writeFirst(this.#nextIndex, table, id, DESC_F_INDIRECT | this.#availableFlags(this.#nextWrap));
    }
    this.#outstanding.set(id, { id, descriptors: [count], token });
    this.#freeDescriptors -= count;
    this.#unkicked += count;
    this.#nextIndex += count;
    if (this.#nextIndex >= this.size) {
      this.#nextIndex -= this.size;
      this.#nextWrap = !this.#nextWrap;
    }
    return true;
  }

  kickNeeded(): boolean {
    const batch = this.#unkicked;
    this.#unkicked = 0;
    if (batch === 0) return false;
    const event = Atomics.load(this.#ring.deviceEvent, 0);
    const flags = event >>> 16;
    if (flags !== EVENT_F_DESC || !this.#eventIdx) return flags !== EVENT_F_DISABLE;
    const sameLap = ((event & WRAP_BIT) !== 0) === this.#nextWrap;
    const position = (event & 0x7fff) - (sameLap ? 0 : this.size);
    return ((this.#nextIndex - position - 1) & 0xffff) < batch;
  }

  popUsed(): UsedChain<Token> | undefined {
    if (!this.#isUsed()) return undefined;
    const { halves, words } = this.#ring;
    const id = halves[this.#usedIndex * DESCRIPTOR_HALVES + HALF_PACKED_ID]!;
    const writtenBytes = words[this.#usedIndex * DESCRIPTOR_WORDS + WORD_LENGTH]!;
    const chain = this.#outstanding.get(id);
    if (chain === undefined)
      throw new RingError(`the device gives back buffer ${id}, which it does not have`);
    const count = chain.descriptors[0]!;
    this.#outstanding.delete(id);
    this.#freeIds.push(id);
    this.#freeDescriptors += count;
    this.#usedIndex += count;
    if (this.#usedIndex >= this.size) {
      this.#usedIndex -= this.size;
      this.#usedWrap = !this.#usedWrap;
    }
    return { token: chain.token, writtenBytes };
  }

  disableInterrupts(): void {
    Atomics.store(this.#ring.driverEvent, 0, EVENT_F_DISABLE << 16);
  }

  enableInterrupts(): boolean {
    const position = this.#usedIndex | (this.#usedWrap ? WRAP_BIT : 0);
    const value = this.#eventIdx ? (EVENT_F_DESC << 16) | position : EVENT_F_ENABLE << 16;
    Atomics.store(this.#ring.driverEvent, 0, value);
    return this.#isUsed();
  }

  exportState(): DriverRingState<Token> {
    return {
      packed: true,
      size: this.size,
      availableIndex: this.#nextIndex | (this.#nextWrap ? WRAP_BIT : 0),
      usedIndex: this.#usedIndex | (this.#usedWrap ? WRAP_BIT : 0),
      free: [...this.#freeIds],
      outstanding: [...this.#outstanding.values()],
    };
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }

  #isUsed(): boolean {
    // A ring that nobody was offered holds no used descriptors, whatever its flags say.
    if (this.#outstanding.size === 0) return false;
    const flags = Atomics.load(this.#ring.halves, this.#usedIndex * DESCRIPTOR_HALVES + HALF_PACKED_FLAGS);
    return (flags & (DESC_F_AVAIL | DESC_F_USED)) === (this.#usedWrap ? DESC_F_AVAIL | DESC_F_USED : 0);
  }

  /** The first descriptor is written last: its flags hand over the whole chain. */
  #writeChain(pieces: readonly DriverPiece[], id: number): void {
    const { words } = this.#ring;
    let index = this.#nextIndex;
    let wrap = this.#nextWrap;
    pieces.forEach((piece, i) => {
      if (i > 0) {
        writeBuffer(words, index * DESCRIPTOR_WORDS, piece.guestAddress, piece.sizeBytes);
        words[index * DESCRIPTOR_WORDS + WORD_LAST] = (this.#pieceFlags(pieces, i, wrap) << 16) | id;
      }
      index++;
      if (index === this.size) {
        index = 0;
        wrap = !wrap;
      }
    });
    this.#writeFirst(this.#nextIndex, pieces[0]!, id, this.#pieceFlags(pieces, 0, this.#nextWrap));
  }

  #writeFirst(
    index: number,
    piece: { guestAddress: number; sizeBytes: number },
    id: number,
    flags: number,
  ): void {
    const { words, halves } = this.#ring;
    writeBuffer(words, index * DESCRIPTOR_WORDS, piece.guestAddress, piece.sizeBytes);
    halves[index * DESCRIPTOR_HALVES + HALF_PACKED_ID] = id;
    Atomics.store(halves, index * DESCRIPTOR_HALVES + HALF_PACKED_FLAGS, flags);
  }

  #pieceFlags(pieces: readonly DriverPiece[], i: number, wrap: boolean): number {
    const next = i < pieces.length - 1 ? DESC_F_NEXT : 0;
    return next | (pieces[i]!.writable ? DESC_F_WRITE : 0) | this.#availableFlags(wrap);
  }

  #availableFlags(wrap: boolean): number {
    return wrap ? DESC_F_AVAIL : DESC_F_USED;
  }

  #clear(): void {
    this.#ring.words.fill(0);
    this.#ring.driverEvent.fill(0);
    this.#ring.deviceEvent.fill(0);
  }

  #continueFrom(state: DriverRingState<Token>): void {
    this.#nextIndex = state.availableIndex & 0x7fff;
    this.#nextWrap = (state.availableIndex & WRAP_BIT) !== 0;
    this.#usedIndex = state.usedIndex & 0x7fff;
    this.#usedWrap = (state.usedIndex & WRAP_BIT) !== 0;
    for (const chain of state.outstanding) {
      this.#outstanding.set(chain.id, chain);
      this.#freeDescriptors -= chain.descriptors[0]!;
    }
  }
}
