import { NativeBuffer } from "./native-buffer.ts";

/** An array of struct iovec {address, length}, reused from call to call. */
export class IoVector {
  readonly #block: NativeBuffer;
  #count = 0;
  #totalBytes = 0;

  constructor(readonly capacity: number) {
    this.#block = new NativeBuffer(capacity * 16);
  }

  get address(): number {
    return this.#block.address;
  }

  get count(): number {
    return this.#count;
  }

  get totalBytes(): number {
    return this.#totalBytes;
  }

  clear(): void {
    this.#count = 0;
    this.#totalBytes = 0;
  }

  /** Adds a piece of this process's memory. */
  push(address: number, sizeBytes: number): void {
    const offset = this.#count * 16;
    if (this.#count >= this.capacity) throw new RangeError(`more than ${this.capacity} pieces`);
    this.#block.setPointer(offset, address);
    this.#block.setPointer(offset + 8, sizeBytes);
    this.#count++;
    this.#totalBytes += sizeBytes;
  }

  /** Drops the first `sizeBytes` bytes, after a short read or write. */
  advance(sizeBytes: number): void {
    const { view } = this.#block;
    let left = sizeBytes;
    let first = 0;
    while (first < this.#count && left >= this.#lengthAt(first)) left -= this.#lengthAt(first++);
    this.#block.bytes.copyWithin(0, first * 16, this.#count * 16);
    this.#count -= first;
    this.#totalBytes -= sizeBytes;
    if (left === 0 || this.#count === 0) return;
    const address = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
    const length = this.#lengthAt(0);
    this.#block.setPointer(0, address + left);
    this.#block.setPointer(8, length - left);
  }

  #lengthAt(index: number): number {
    const { view } = this.#block;
    return view.getUint32(index * 16 + 8, true) + view.getUint32(index * 16 + 12, true) * 2 ** 32;
  }
}
