/**
 * msgpackr accepts duplicate keys, invalid UTF-8, records and 10,000 levels of nesting; a device state from
 * elsewhere may use any of them. So its bytes are walked once before msgpackr sees them.
 */
import { FormatError } from "../errors.ts";
import { MAX_STATE_VALUE_DEPTH, MAX_STATE_VALUE_ITEMS } from "../limits.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Checks that `bytes` hold exactly one msgpack value: no extension types, map keys are unique strings, UTF-8 is valid,
 * at most 32 levels and 2^20 items, every length within the input.
 *
 * @param section What is being read, for the error.
 * @param base The offset of `bytes` in the input, for the error.
 * @throws FormatError
 */
export function validateMsgpack(bytes: Uint8Array, section: string, base: number): void {
  const validator = new Validator(bytes, section, base);
  validator.value(0);
  if (validator.at !== bytes.length) validator.fail("bytes follow the value");
}

class Validator {
  at = 0;
  #items = 0;
  readonly #bytes: Uint8Array;
  readonly #section: string;
  readonly #base: number;

  constructor(bytes: Uint8Array, section: string, base: number) {
    this.#bytes = bytes;
    this.#section = section;
    this.#base = base;
  }

  fail(message: string, at = this.at): never {
    throw new FormatError(`invalid msgpack: ${message}`, this.#section, this.#base + at);
  }

  /** One value at the cursor, `depth` containers deep. */
  value(depth: number): void {
    this.#items += 1;
    if (this.#items > MAX_STATE_VALUE_ITEMS) this.fail(`more than ${MAX_STATE_VALUE_ITEMS} items`);
    const start = this.at;
    const byte = this.#byte();
    if (byte <= 0x7f || byte >= 0xe0 || byte === 0xc0 || byte === 0xc2 || byte === 0xc3) return;
    if (byte <= 0x8f) this.#map(byte & 0x0f, depth);
    else if (byte <= 0x9f) this.#array(byte & 0x0f, depth);
    else if (byte <= 0xbf) this.#text(byte & 0x1f);
    else if (byte >= 0xc4 && byte <= 0xc6) this.#skip(this.#length(1 << (byte - 0xc4)));
    else if (byte === 0xca || byte === 0xcb) this.#skip(byte === 0xca ? 4 : 8);
    else if (byte >= 0xcc && byte <= 0xcf) this.#skip(1 << (byte - 0xcc));
    else if (byte >= 0xd0 && byte <= 0xd3) this.#skip(1 << (byte - 0xd0));
    else if (byte >= 0xd9 && byte <= 0xdb) this.#text(this.#length(1 << (byte - 0xd9)));
    else if (byte === 0xdc || byte === 0xdd) this.#array(this.#length(byte === 0xdc ? 2 : 4), depth);
    else if (byte === 0xde || byte === 0xdf) this.#map(this.#length(byte === 0xde ? 2 : 4), depth);
    else this.fail(`type 0x${byte.toString(16)} is not used here`, start);
  }

  #array(count: number, depth: number): void {
    this.#enter(count, depth);
    for (let index = 0; index < count; index += 1) this.value(depth + 1);
  }

  #map(count: number, depth: number): void {
    this.#enter(count * 2, depth);
    const keys = new Set<string>();
    for (let index = 0; index < count; index += 1) {
      const start = this.at;
      const key = this.#key();
      if (keys.has(key)) this.fail(`duplicate key ${JSON.stringify(key)}`, start);
      // As a property name it would set the prototype instead.
      if (key === "__proto__") this.fail('the key "__proto__" is not allowed', start);
      keys.add(key);
      this.value(depth + 1);
    }
  }

  /** A container whose items, of one byte at least, must still be in the input. */
  #enter(count: number, depth: number): void {
    if (depth >= MAX_STATE_VALUE_DEPTH) this.fail(`more than ${MAX_STATE_VALUE_DEPTH} levels of nesting`);
    if (count > this.#bytes.length - this.at) this.fail(`${count} items do not fit in the rest of the input`);
  }

  #key(): string {
    const start = this.at;
    const byte = this.#byte();
    if (byte >= 0xa0 && byte <= 0xbf) return this.#text(byte & 0x1f);
    if (byte >= 0xd9 && byte <= 0xdb) return this.#text(this.#length(1 << (byte - 0xd9)));
    return this.fail("a map key is not a string", start);
  }

  #text(length: number): string {
    const start = this.at;
    this.#skip(length);
    try {
      return utf8.decode(this.#bytes.subarray(start, start + length));
    } catch {
      return this.fail("a string is not UTF-8", start);
    }
  }

  #length(width: number): number {
    let value = 0;
    for (let index = 0; index < width; index += 1) value = value * 256 + this.#byte();
    return value;
  }

  #byte(): number {
    const byte = this.#bytes[this.at];
    if (byte === undefined) return this.fail("the input ends inside a value");
    this.at += 1;
    return byte;
  }

  #skip(length: number): void {
    if (length > this.#bytes.length - this.at) {
      this.fail(`${length} bytes are announced, ${this.#bytes.length - this.at} are left`);
    }
    this.at += length;
  }
}
