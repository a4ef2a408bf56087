import { MAX_CHAIN_BYTES, MAX_CHAIN_PIECES } from "../limits.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import { RingError } from "./ring-error.ts";

const INITIAL_PIECES = 32;

/**
 * One request of the driver: a list of pieces of guest memory, first those that the device reads, then those that it
 * writes. Reusable: `pop` fills it and allocates nothing; it must stay untouched until `complete`.
 *
 * A piece is contiguous in this process. A buffer that spans two regions makes two pieces.
 */
export class Chain {
  /** What `complete` tells the driver: the head index (split) or the buffer id (packed). Unique among those in flight. */
  head = 0;
  pieceCount = 0;
  /** Addresses in this process, for preadv, pwritev and io_uring. */
  addresses = new Float64Array(INITIAL_PIECES);
  guestAddresses = new Float64Array(INITIAL_PIECES);
  lengths = new Uint32Array(INITIAL_PIECES);
  /** Pieces 0 to readableCount are device-readable, the rest device-writable. */
  readableCount = 0;
  readableBytes = 0;
  writableBytes = 0;
  /** Descriptors of a packed ring that the chain occupies. Kept by the ring. */
  ringDescriptors = 0;
  /** Entry of the packed inflight region. Kept by the ring. */
  inflightEntry = 0;
  #memory: GuestMemory | undefined;

  /** Empties the chain. Called by the ring. */
  reset(memory: GuestMemory): void {
    this.#memory = memory;
    this.pieceCount = 0;
    this.readableCount = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /**
   * Takes a descriptor that was read once, and checks it. Called by the ring. Returns false where a translation is missing
   * that may still come.
   * @throws RingError
   */
  append(space: AddressSpace, address: number, sizeBytes: number, writable: boolean): boolean {
    // QEMU refuses empty buffers, so no working driver makes them.
    if (sizeBytes === 0) throw new RingError("a descriptor has length 0");
    if (writable) {
      this.writableBytes += sizeBytes;
    } else {
      if (this.writableBytes !== 0) throw new RingError("a readable descriptor follows a writable one");
      this.readableBytes += sizeBytes;
    }
    if (this.readableBytes + this.writableBytes > MAX_CHAIN_BYTES) {
      throw new RingError("a chain is longer than 2^32 bytes");
    }
    const native = space.nativeAddress(address, sizeBytes, writable);
    if (native < 0) return this.#appendPieces(space, address, sizeBytes, writable);
    this.#push(native, space.toGuest(address), sizeBytes, writable);
    return true;
  }

  /** Copies from the device-readable bytes, starting at `offset` of them. Returns the bytes copied. */
  copyFromReadable(offset: number, into: Uint8Array): number {
    let skip = offset;
    let done = 0;
    for (let i = 0; i < this.readableCount && done < into.length; i++) {
      const length = this.lengths[i]!;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const count = Math.min(length - skip, into.length - done);
      this.#memory!.read(this.guestAddresses[i]! + skip, into, done, count);
      done += count;
      skip = 0;
    }
    return done;
  }

  /** Copies to the device-writable bytes, starting at `offset` of them, and marks them dirty. Returns the bytes copied. */
  copyToWritable(offset: number, bytes: Uint8Array): number {
    let skip = offset;
    let done = 0;
    for (let i = this.readableCount; i < this.pieceCount && done < bytes.length; i++) {
      const length = this.lengths[i]!;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const count = Math.min(length - skip, bytes.length - done);
      this.#memory!.write(this.guestAddresses[i]! + skip, bytes, done, count);
      done += count;
      skip = 0;
    }
    return done;
  }

  /** Marks the first `writtenBytes` of the device-writable bytes dirty. */
  markWritten(writtenBytes: number): void {
    const log = this.#memory!.dirtyLog;
    if (log === undefined) return;
    let left = writtenBytes;
    for (let i = this.readableCount; i < this.pieceCount && left > 0; i++) {
      const count = Math.min(left, this.lengths[i]!);
      log.mark(this.guestAddresses[i]!, count);
      left -= count;
    }
  }

  #appendPieces(space: AddressSpace, address: number, sizeBytes: number, writable: boolean): boolean {
    let done = 0;
    while (done < sizeBytes) {
      const count = Math.min(space.contiguousBytes(address + done, writable), sizeBytes - done);
      const native = count === 0 ? -1 : space.nativeAddress(address + done, count, writable);
      if (native < 0) {
        if (space.missPending) return false;
        throw new RingError("a descriptor points outside guest memory", { address, sizeBytes });
      }
      this.#push(native, space.toGuest(address + done), count, writable);
      done += count;
    }
    return true;
  }

  #push(native: number, guest: number, sizeBytes: number, writable: boolean): void {
    const index = this.pieceCount;
    if (index === this.lengths.length) this.#grow();
    this.addresses[index] = native;
    this.guestAddresses[index] = guest;
    this.lengths[index] = sizeBytes;
    this.pieceCount = index + 1;
    if (!writable) this.readableCount = index + 1;
  }

  #grow(): void {
    const capacity = this.lengths.length * 2;
    if (capacity > MAX_CHAIN_PIECES) throw new RingError(`a chain has more than ${MAX_CHAIN_PIECES} pieces`);
    const { addresses, guestAddresses, lengths } = this;
    this.addresses = new Float64Array(capacity);
    this.addresses.set(addresses);
    this.guestAddresses = new Float64Array(capacity);
    this.guestAddresses.set(guestAddresses);
    this.lengths = new Uint32Array(capacity);
    this.lengths.set(lengths);
  }
}
