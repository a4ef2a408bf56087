import { FormatError } from "../../src/errors.ts";
import { readString } from "./stream-string.ts";

/** Thrown where a record is not whole yet: it is read anew when more bytes are here. */
export const NEED_MORE = Symbol("more bytes are needed");

const LEAST_BUFFER_BYTES = 64 * 1024;

/** The bytes of a stream that have come and are not used up, with the record that is being read. */
export class StreamInput {
  #own = new Uint8Array(LEAST_BUFFER_BYTES);
  /** Its own buffer, or the caller's while it is being read. */
  #bytes: Uint8Array = this.#own;
  #view: DataView = new DataView(this.#own.buffer);
  #start = 0;
  #at = 0;
  #end = 0;
  /** Of `#bytes[0]`, in the stream. */
  #base = 0;

  /**
   * More bytes, which stay the caller's and are read in place where they can be.
   *
   * @param headroomBytes What the caller lets be overwritten in front of `chunk`: the record that is not whole yet goes there.
   */
  push(chunk: Uint8Array, headroomBytes = 0): void {
    const pending = this.pendingBytes;
    if (pending > headroomBytes) {
      this.#append(chunk);
      return;
    }
    const whole = new Uint8Array(chunk.buffer, chunk.byteOffset - pending, pending + chunk.length);
    whole.set(this.#bytes.subarray(this.#start, this.#end));
    this.#become(whole, whole.length);
  }

  /** What is left of a chunk that was read in place is kept: its memory is the caller's again. */
  release(): void {
    if (this.#bytes === this.#own) return;
    const rest = this.#bytes.subarray(this.#start, this.#end);
    if (rest.length > this.#own.length) this.#own = new Uint8Array(2 * rest.length);
    this.#own.set(rest);
    this.#become(this.#own, rest.length);
  }

  #append(chunk: Uint8Array): void {
    const pending = this.pendingBytes;
    if (this.#end + chunk.length > this.#own.length) {
      const isTooSmall = pending + chunk.length > this.#own.length;
      const target = isTooSmall ? new Uint8Array(2 * (pending + chunk.length)) : this.#own;
      target.set(this.#own.subarray(this.#start, this.#end));
      this.#own = target;
      this.#become(target, pending);
    }
    this.#own.set(chunk, this.#end);
    this.#end += chunk.length;
    this.#at = this.#start;
  }

  /** The same bytes elsewhere: those that are pending come first. */
  #become(bytes: Uint8Array, end: number): void {
    this.#base += this.#start;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#start = 0;
    this.#at = 0;
    this.#end = end;
  }

  /** Of the next byte, in the stream. */
  get offset(): number {
    return this.#base + this.#at;
  }

  get pendingBytes(): number {
    return this.#end - this.#start;
  }

  /** The record is used up: its bytes, valid until the next push. */
  commit(): Uint8Array {
    const record = this.#bytes.subarray(this.#start, this.#at);
    this.#start = this.#at;
    return record;
  }

  /** Back to the start of the record. */
  rewind(): void {
    this.#at = this.#start;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  /** A u64 as its halves: the page records of a stream cost no bigint. */
  u64(): { readonly high: number; readonly low: number } {
    const at = this.#take(8);
    return { high: this.#view.getUint32(at), low: this.#view.getUint32(at + 4) };
  }

  /** A u64 that must be a number. @throws FormatError above 2^53 */
  size(what: string): number {
    const { high, low } = this.u64();
    const value = high * 2 ** 32 + low;
    if (!Number.isSafeInteger(value))
      throw new FormatError(`${what} is too large`, "QEMU stream", this.offset);
    return value;
  }

  /** u8 length, bytes. @throws FormatError where they are no UTF-8 */
  string(what: string): string {
    const length = this.u8();
    return readString(this.take(length), what, this.offset);
  }

  /** Valid until the next push. */
  take(sizeBytes: number): Uint8Array {
    const at = this.#take(sizeBytes);
    return this.#bytes.subarray(at, at + sizeBytes);
  }

  /** All that is here. */
  takeRest(): void {
    this.#at = this.#end;
  }

  #take(sizeBytes: number): number {
    const at = this.#at;
    if (at + sizeBytes > this.#end) throw NEED_MORE;
    this.#at = at + sizeBytes;
    return at;
  }
}
