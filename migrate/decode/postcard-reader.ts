import { ByteReader } from "./byte-reader.ts";

const U64_MASK = 0xffff_ffff_ffff_ffffn;

/** Values as the Rust crate postcard writes them (postcard.jamesmunns.com/wire-format): nothing of a type is in the bytes. */
export class PostcardReader extends ByteReader {
  /** An unsigned integer of up to 64 bits: 7 bits a byte, the lowest first. */
  varint(): bigint {
    const start = this.at;
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = BigInt(this.u8());
      value |= (byte & 0x7fn) << shift;
      if (byte < 0x80n) return value <= U64_MASK ? value : this.fail("a number has more than 64 bits", start);
    }
    return this.fail("a number does not end", start);
  }

  /** Signed: zigzag. */
  signed(): bigint {
    const value = this.varint();
    return (value >> 1n) ^ -(value & 1n);
  }

  bool(): boolean {
    const byte = this.u8();
    if (byte > 1) this.fail(`a truth value is ${byte}`, this.at - 1);
    return byte === 1;
  }

  /** Text with its length before it. */
  string(): string {
    return this.text(this.#length());
  }

  bytes(): Uint8Array {
    return this.take(this.#length());
  }

  list<Item>(item: (index: number) => Item): Item[] {
    return Array.from({ length: this.#length() }, (_, index) => item(index));
  }

  option<Item>(item: () => Item): Item | undefined {
    return this.bool() ? item() : undefined;
  }

  /** The number of an enum's variant. */
  variant(count: number): number {
    const start = this.at;
    const number = this.varint();
    return number < count ? Number(number) : this.fail(`there is no variant ${number}`, start);
  }

  /** Of items of a byte at least. */
  #length(): number {
    const start = this.at;
    const length = this.varint();
    if (length > BigInt(this.left))
      this.fail(`${length} items are announced, ${this.left} bytes are left`, start);
    return Number(length);
  }
}
