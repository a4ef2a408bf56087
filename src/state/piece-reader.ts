const INITIAL_BYTES = 64 * 1024;

/**
 * Cuts a stream that arrives in chunks of any size into pieces of a length known in advance. A piece that lies whole in
 * one chunk is passed on as a view; any other is gathered in one buffer, which grows with what has arrived, not
 * with what was announced.
 */
export class PieceReader {
  #buffer = new Uint8Array(INITIAL_BYTES);
  #held = 0;
  #length = 0;
  #offset = 0;
  #next = 0;

  /** Where the current piece starts in the stream. */
  get offset(): number {
    return this.#offset;
  }
  /** Bytes of the current piece that are here. */
  get held(): number {
    return this.#held;
  }
  get missing(): number {
    return this.#length - this.#held;
  }

  /** The next piece has `length` bytes, at least one. */
  expect(length: number): void {
    this.#length = length;
  }

  /** Takes what the current piece needs, hands it over if it is complete, and returns the rest of `chunk`. */
  feed(chunk: Uint8Array, take: (piece: Uint8Array) => void): Uint8Array {
    this.#offset = this.#next;
    const missing = this.#length - this.#held;
    if (chunk.length < missing) {
      this.#append(chunk);
      return chunk.subarray(chunk.length);
    }
    let piece = chunk.subarray(0, missing);
    if (this.#held > 0) {
      this.#append(piece);
      piece = this.#buffer.subarray(0, this.#length);
    }
    this.#held = 0;
    this.#next = this.#offset + this.#length;
    take(piece);
    this.#offset = this.#next;
    return chunk.subarray(missing);
  }

  #append(bytes: Uint8Array): void {
    const needed = this.#held + bytes.length;
    if (needed > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(needed, Math.min(this.#length, this.#buffer.length * 2)));
      larger.set(this.#buffer.subarray(0, this.#held));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#held);
    this.#held = needed;
  }
}
