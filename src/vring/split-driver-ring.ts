import type { GuestMemory } from "../memory/mod.ts";
import { checkPieces, DriverIndirect, type DriverPiece, writeBuffer } from "./driver-chain.ts";
import type { DriverRing, DriverRingOptions, UsedChain } from "./driver-ring.ts";
import { checkDriverState, type DriverRingState, type OutstandingChain } from "./driver-ring-state.ts";
import { RingError } from "./ring-error.ts";
import type { RingLayout } from "./ring-layout.ts";
import { openSplitRing, type SplitRingMemory } from "./ring-memory.ts";
import {
  AVAIL_F_NO_INTERRUPT,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_WORDS,
  HALF_AVAILABLE_FLAGS,
  HALF_AVAILABLE_INDEX,
  HALF_AVAILABLE_RING,
  HALF_USED_FLAGS,
  HALF_USED_INDEX,
  USED_ELEMENT_BYTES,
  USED_F_NO_NOTIFY,
  USED_RING_BYTE,
  WORD_LAST,
} from "./ring-offsets.ts";

/** The driver's side of a split ring (virtio 1.2, 2.7). */
export class SplitDriverRing<Token> implements DriverRing<Token> {
  readonly size: number;
  readonly #ring: SplitRingMemory;
  readonly #eventIdx: boolean;
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  readonly #indirect: DriverIndirect | undefined;
  readonly #free: number[];
  readonly #outstanding = new Map<number, OutstandingChain<Token>>();
  #availableIndex = 0;
  #usedIndex = 0;
  #kickedIndex = 0;

  constructor(memory: GuestMemory, layout: RingLayout, options: DriverRingOptions<Token>) {
    const { size } = layout;
    const { indirectArea, state } = options;
    if (state !== undefined) checkDriverState(state, size, false);
    this.size = size;
    this.#eventIdx = layout.eventIdx;
    this.#usedEvent = HALF_AVAILABLE_RING + size;
    this.#availableEvent = (USED_RING_BYTE + size * USED_ELEMENT_BYTES) / 2;
    this.#indirect =
      layout.indirect && indirectArea !== undefined
        ? new DriverIndirect(memory, indirectArea, size, false)
        : undefined;
    this.#ring = openSplitRing(memory, memory, layout);
    // Taken from the end: so descriptor 0 is the first to be used.
    this.#free = state === undefined ? Array.from({ length: size }, (_, i) => size - 1 - i) : [...state.free];
    if (state === undefined) this.#clear();
    else this.#continueFrom(state);
  }

  get freeDescriptors(): number {
    return this.#free.length;
  }

  get outstanding(): number {
    return this.#outstanding.size;
  }

  add(pieces: readonly DriverPiece[], token: Token): boolean {
    checkPieces(pieces);
    const indirect = this.#indirect?.fits(pieces) ? this.#indirect : undefined;
    const count = indirect === undefined ? pieces.length : 1;
    if (this.#free.length < count) return false;
    const descriptors: number[] = [];
    while (descriptors.length < count) descriptors.push(this.#free.pop()!);
    const head = descriptors[0]!;
    if (indirect === undefined) this.#writeChain(pieces, descriptors);
    else this.#writeIndirect(head, indirect.write(head, pieces), pieces.length);
    this.#outstanding.set(head, { id: head, descriptors, token });
    const { available } = this.#ring;
    available[HALF_AVAILABLE_RING + (this.#availableIndex & (this.size - 1))] = head;
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    Atomics.store(available, HALF_AVAILABLE_INDEX, this.#availableIndex);
    return true;
  }

  kickNeeded(): boolean {
    const { used } = this.#ring;
    const batch = (this.#availableIndex - this.#kickedIndex) & 0xffff;
    this.#kickedIndex = this.#availableIndex;
    if (batch === 0) return false;
    if (!this.#eventIdx) return (Atomics.load(used, HALF_USED_FLAGS) & USED_F_NO_NOTIFY) === 0;
    return ((this.#availableIndex - Atomics.load(used, this.#availableEvent) - 1) & 0xffff) < batch;
  }

  popUsed(): UsedChain<Token> | undefined {
    const { used, usedElements } = this.#ring;
    const index = Atomics.load(used, HALF_USED_INDEX);
    if (index === this.#usedIndex) return undefined;
    if (((index - this.#usedIndex) & 0xffff) > this.#outstanding.size) {
      throw new RingError(`the used index ${index} is beyond what was offered`, {
        usedIndex: this.#usedIndex,
      });
    }
    const slot = this.#usedIndex & (this.size - 1);
    const head = usedElements[slot * 2]!;
    const writtenBytes = usedElements[slot * 2 + 1]!;
    const chain = this.#outstanding.get(head);
    if (chain === undefined)
      throw new RingError(`the device gives back chain ${head}, which it does not have`);
    this.#outstanding.delete(head);
    for (let i = chain.descriptors.length - 1; i >= 0; i--) this.#free.push(chain.descriptors[i]!);
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    return { token: chain.token, writtenBytes };
  }

  disableInterrupts(): void {
    // With EVENT_IDX the flag is ignored; used_event stays behind and so asks for nothing.
    if (!this.#eventIdx) Atomics.store(this.#ring.available, HALF_AVAILABLE_FLAGS, AVAIL_F_NO_INTERRUPT);
  }

  enableInterrupts(): boolean {
    const { available, used } = this.#ring;
    if (this.#eventIdx) Atomics.store(available, this.#usedEvent, this.#usedIndex);
    else Atomics.store(available, HALF_AVAILABLE_FLAGS, 0);
    return Atomics.load(used, HALF_USED_INDEX) !== this.#usedIndex;
  }

  exportState(): DriverRingState<Token> {
    return {
      packed: false,
      size: this.size,
      availableIndex: this.#availableIndex,
      usedIndex: this.#usedIndex,
      free: [...this.#free],
      outstanding: [...this.#outstanding.values()],
    };
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }

  #writeChain(pieces: readonly DriverPiece[], descriptors: readonly number[]): void {
    const words = this.#ring.descriptors;
    for (let i = 0; i < pieces.length; i++) {
      const piece = pieces[i]!;
      const word = descriptors[i]! * DESCRIPTOR_WORDS;
      const next = descriptors[i + 1];
      const flags = piece.writable ? DESC_F_WRITE : 0;
      writeBuffer(words, word, piece.guestAddress, piece.sizeBytes);
      words[word + WORD_LAST] = next === undefined ? flags : flags | DESC_F_NEXT | (next << 16);
    }
  }

  #writeIndirect(head: number, tableAddress: number, count: number): void {
    const words = this.#ring.descriptors;
    writeBuffer(words, head * DESCRIPTOR_WORDS, tableAddress, count * DESCRIPTOR_BYTES);
    words[head * DESCRIPTOR_WORDS + WORD_LAST] = DESC_F_INDIRECT;
  }

  #clear(): void {
    this.#ring.descriptors.fill(0);
    this.#ring.available.fill(0);
    this.#ring.used.fill(0);
  }

  #continueFrom(state: DriverRingState<Token>): void {
    this.#availableIndex = state.availableIndex;
    this.#usedIndex = state.usedIndex;
    this.#kickedIndex = state.availableIndex;
    for (const chain of state.outstanding) this.#outstanding.set(chain.id, chain);
  }
}
