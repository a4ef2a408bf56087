import { UsageError } from "../errors.ts";
import { MAX_INDIRECT_DESCRIPTORS } from "../limits.ts";
import type { GuestMemory } from "../memory/mod.ts";
import {
  DESC_F_NEXT,
  DESC_F_WRITE,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_WORDS,
  WORD_ADDRESS_HIGH,
  WORD_ADDRESS_LOW,
  WORD_LAST,
  WORD_LENGTH,
} from "./ring-offsets.ts";

/** A buffer of a request: guest-physical, at most 2^32 - 1 bytes. The writable ones come last. */
export interface DriverPiece {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  readonly writable: boolean;
}

/** Guest memory that the driver sets aside for indirect tables: one table of `maxPieces` descriptors per ring slot. */
export interface IndirectArea {
  readonly guestAddress: number;
  readonly maxPieces: number;
}

/** What the area must hold for a ring of `size` descriptors, in bytes. */
export function indirectAreaBytes(size: number, maxPieces: number): number {
  return size * maxPieces * DESCRIPTOR_BYTES;
}

/** @throws UsageError for a chain that no device would accept */
export function checkPieces(pieces: readonly DriverPiece[]): void {
  if (pieces.length === 0) throw new UsageError("a chain needs at least one piece");
  let writableSeen = false;
  for (const { guestAddress, sizeBytes, writable } of pieces) {
    if (!(Number.isInteger(sizeBytes) && sizeBytes >= 1 && sizeBytes < 2 ** 32)) {
      throw new UsageError(`a piece of ${sizeBytes} bytes; 1 to 2^32 - 1 are possible`);
    }
    if (!Number.isSafeInteger(guestAddress) || guestAddress < 0) {
      throw new UsageError(`a piece at guest address ${guestAddress}`);
    }
    if (writableSeen && !writable) throw new UsageError("the readable pieces come before the writable ones");
    writableSeen = writable;
  }
}

/** Writes address and length of one descriptor. */
export function writeBuffer(words: Uint32Array, word: number, address: number, sizeBytes: number): void {
  words[word + WORD_ADDRESS_LOW] = address % 0x100000000;
  words[word + WORD_ADDRESS_HIGH] = Math.floor(address / 0x100000000);
  words[word + WORD_LENGTH] = sizeBytes;
}

/** The driver's tables of indirect descriptors: table n belongs to the chain whose head or id is n. */
export class DriverIndirect {
  readonly #memory: GuestMemory;
  readonly #area: IndirectArea;
  readonly #packed: boolean;
  readonly #words: Uint32Array<ArrayBuffer>;

  /** @throws UsageError when tables of this size are impossible, StateError when the area is not in guest memory */
  constructor(memory: GuestMemory, area: IndirectArea, size: number, packed: boolean) {
    if (
      !(Number.isInteger(area.maxPieces) && area.maxPieces >= 1 && area.maxPieces <= MAX_INDIRECT_DESCRIPTORS)
    ) {
      throw new UsageError(
        `indirect tables of ${area.maxPieces} pieces; 1 to ${MAX_INDIRECT_DESCRIPTORS} are possible`,
      );
    }
    // Opened and closed at once: it throws when the area is not in one region.
    memory.closeWindow(memory.window(area.guestAddress, indirectAreaBytes(size, area.maxPieces)));
    this.#memory = memory;
    this.#area = area;
    this.#packed = packed;
    this.#words = new Uint32Array(new ArrayBuffer(area.maxPieces * DESCRIPTOR_BYTES));
  }

  /** Worth it and possible: one descriptor of the ring instead of several. */
  fits(pieces: readonly DriverPiece[]): boolean {
    return pieces.length > 1 && pieces.length <= this.#area.maxPieces;
  }

  /** Writes table `index`. Returns its guest address. */
  write(index: number, pieces: readonly DriverPiece[]): number {
    const words = this.#words;
    pieces.forEach((piece, i) => {
      const word = i * DESCRIPTOR_WORDS;
      const writeFlag = piece.writable ? DESC_F_WRITE : 0;
      writeBuffer(words, word, piece.guestAddress, piece.sizeBytes);
      if (this.#packed) words[word + WORD_LAST] = writeFlag << 16;
      else
        words[word + WORD_LAST] =
          i === pieces.length - 1 ? writeFlag : writeFlag | DESC_F_NEXT | ((i + 1) << 16);
    });
    const address = this.#area.guestAddress + index * this.#area.maxPieces * DESCRIPTOR_BYTES;
    this.#memory.write(address, new Uint8Array(words.buffer, 0, pieces.length * DESCRIPTOR_BYTES));
    return address;
  }
}
