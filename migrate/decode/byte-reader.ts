import { FormatError } from "../../src/errors.ts";

/** Reads bytes from front to back; every length is checked against what is left before it is used. */
export class ByteReader {
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #section: string;

  /** @param section What is being read, for errors. */
  constructor(bytes: Uint8Array, section: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#section = section;
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  /** The next byte, which stays. */
  peek(): number | undefined {
    return this.#bytes[this.at];
  }

  u8(): number {
    return this.take(1)[0] as number;
  }
  u16be(): number {
    return this.#view.getUint16(this.#step(2));
  }
  u32be(): number {
    return this.#view.getUint32(this.#step(4));
  }
  u64be(): bigint {
    return this.#view.getBigUint64(this.#step(8));
  }
  f32be(): number {
    return this.#view.getFloat32(this.#step(4));
  }
  f64be(): number {
    return this.#view.getFloat64(this.#step(8));
  }

  /** A view of the next bytes. */
  take(sizeBytes: number): Uint8Array {
    const start = this.#step(sizeBytes);
    return this.#bytes.subarray(start, start + sizeBytes);
  }

  text(sizeBytes: number): string {
    const start = this.at;
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(sizeBytes));
    } catch (error) {
      if (error instanceof FormatError) throw error;
      return this.fail("a text is not UTF-8", start);
    }
  }

  /** @throws FormatError for a count of things, of a byte at least each, that cannot be there */
  expectItems(count: number, leastBytes = 1): void {
    if (count * leastBytes > this.left) this.fail(`${count} items do not fit in the ${this.left} bytes left`);
  }

  /** @throws FormatError unless all was read */
  expectEnd(): void {
    if (this.left > 0) this.fail(`${this.left} bytes follow the end`);
  }

  fail(message: string, at = this.at): never {
    throw new FormatError(message, this.#section, at);
  }

  #step(sizeBytes: number): number {
    const start = this.at;
    if (sizeBytes > this.left) this.fail(`${sizeBytes} bytes are wanted, ${this.left} are left`);
    this.at += sizeBytes;
    return start;
  }
}
