import assert from "node:assert/strict";
import { NativeBuffer } from "../../src/sys/mod.ts";

const INITIAL_BYTES = 4096;

/** Bytes in the order in which they came, in one block of memory that a system call can be given. */
export class ByteQueue {
  #buffer = new NativeBuffer(INITIAL_BYTES);
  #start = 0;
  #end = 0;

  get length(): number {
    return this.#end - this.#start;
  }

  /** The memory to write(2) from: `length` bytes from `start` on. Void after the next `reserve`. */
  get buffer(): NativeBuffer {
    return this.#buffer;
  }

  get start(): number {
    return this.#start;
  }

  /** A view of what is queued, void after the next call that changes the queue. */
  peek(maxBytes = this.length): Uint8Array {
    return this.#buffer.bytes.subarray(this.#start, this.#start + Math.min(maxBytes, this.length));
  }

  push(bytes: Uint8Array): void {
    this.reserve(bytes.length).set(bytes);
    this.#end += bytes.length;
  }

  /** Room for `sizeBytes` more at the end; they are part of the queue after `commit`. */
  reserve(sizeBytes: number): Uint8Array {
    if (this.#end + sizeBytes > this.#buffer.sizeBytes) this.#makeRoom(sizeBytes);
    return this.#buffer.bytes.subarray(this.#end, this.#end + sizeBytes);
  }

  commit(sizeBytes: number): void {
    assert(this.#end + sizeBytes <= this.#buffer.sizeBytes, "more committed than reserved");
    this.#end += sizeBytes;
  }

  /** Removes the first `sizeBytes` bytes. */
  drop(sizeBytes: number): void {
    assert(sizeBytes <= this.length, "more dropped than queued");
    this.#start += sizeBytes;
    if (this.#start === this.#end) this.#start = this.#end = 0;
  }

  clear(): void {
    this.#start = this.#end = 0;
  }

  #makeRoom(sizeBytes: number): void {
    const { length } = this;
    let capacity = this.#buffer.sizeBytes;
    while (capacity < length + sizeBytes) capacity *= 2;
    const next = capacity === this.#buffer.sizeBytes ? this.#buffer : new NativeBuffer(capacity);
    // `set` between overlapping ranges of one buffer moves them as memmove does.
    next.bytes.set(this.#buffer.bytes.subarray(this.#start, this.#end));
    this.#buffer = next;
    this.#start = 0;
    this.#end = length;
  }
}
