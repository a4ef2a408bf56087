import { FormatError } from "../../../src/errors.ts";

/** Reads big-endian values off bytes that may end anywhere. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;
  #at = 0;

  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get offset(): number {
    return this.#at;
  }

  get remainingBytes(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#skip(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#skip(2));
  }

  u32(): number {
    return this.#view.getUint32(this.#skip(4));
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#skip(8));
  }

  take(sizeBytes: number): Uint8Array {
    const at = this.#skip(sizeBytes);
    return this.#bytes.subarray(at, at + sizeBytes);
  }

  /** The next byte, without taking it; undefined at the end. */
  peek(): number | undefined {
    return this.#bytes[this.#at];
  }

  /** @throws FormatError where there are fewer bytes */
  #skip(sizeBytes: number): number {
    if (sizeBytes > this.remainingBytes) {
      throw new FormatError(
        `${sizeBytes} bytes are wanted, ${this.remainingBytes} are there`,
        this.#what,
        this.#at,
      );
    }
    const at = this.#at;
    this.#at += sizeBytes;
    return at;
  }
}
