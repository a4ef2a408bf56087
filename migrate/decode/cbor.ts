import { MAX_STATE_TREE_DEPTH, MAX_STATE_VALUE_ITEMS } from "../../src/limits.ts";
import { ByteReader } from "./byte-reader.ts";

/** Major types (RFC 8949, 3.1). */
const UNSIGNED = 0;
const NEGATIVE = 1;
const BYTES = 2;
const TEXT = 3;
const ARRAY = 4;
const MAP = 5;
const TAG = 6;
const INDEFINITE = 31;
const BREAK = 0xff;

/**
 * Exactly one CBOR value: numbers, bigints, text, bytes, arrays, Maps, booleans, null. A tag is passed over.
 *
 * @throws FormatError
 */
export function decodeCbor(bytes: Uint8Array, section: string): unknown {
  const decoder = new CborDecoder(bytes, section);
  const value = decoder.value(0);
  decoder.expectEnd();
  return value;
}

class CborDecoder extends ByteReader {
  #items = 0;

  value(depth: number): unknown {
    this.#items += 1;
    if (depth > MAX_STATE_TREE_DEPTH) this.fail(`more than ${MAX_STATE_TREE_DEPTH} levels`);
    if (this.#items > MAX_STATE_VALUE_ITEMS) this.fail(`more than ${MAX_STATE_VALUE_ITEMS} items`);
    const start = this.at;
    const first = this.u8();
    const [major, low] = [first >> 5, first & 0x1f];
    if (major === BYTES || major === TEXT) return this.#text(major, low);
    if (major === ARRAY) return this.#array(low, depth);
    if (major === MAP) return this.#map(low, depth);
    if (major === UNSIGNED) return small(this.#argument(low));
    if (major === NEGATIVE) return small(-1n - this.#argument(low));
    if (major === TAG) {
      this.#argument(low);
      return this.value(depth + 1);
    }
    return this.#simple(low, start);
  }

  #array(low: number, depth: number): unknown[] {
    const items: unknown[] = [];
    const count = this.#count(low);
    while (this.#goesOn(items.length, count)) items.push(this.value(depth + 1));
    return items;
  }

  #map(low: number, depth: number): Map<unknown, unknown> {
    const entries = new Map<unknown, unknown>();
    const count = this.#count(low);
    for (let index = 0; this.#goesOn(index, count); index += 1) {
      const start = this.at;
      const key = this.value(depth + 1);
      if (typeof key === "object") this.fail("a key is no plain value", start);
      if (entries.has(key)) this.fail(`the key ${String(key)} is there twice`, start);
      entries.set(key, this.value(depth + 1));
    }
    return entries;
  }

  #text(major: number, low: number): string | Uint8Array {
    if (low !== INDEFINITE) return major === TEXT ? this.text(this.#count(low)) : this.take(this.#count(low));
    const pieces: (string | Uint8Array)[] = [];
    while (this.#goesOn(pieces.length, Number.POSITIVE_INFINITY)) {
      const first = this.u8();
      if (first >> 5 !== major || (first & 0x1f) === INDEFINITE)
        this.fail("a piece is of another kind", this.at - 1);
      pieces.push(this.#text(major, first & 0x1f));
    }
    return major === TEXT ? pieces.join("") : Buffer.concat(pieces as Uint8Array[]);
  }

  #simple(low: number, start: number): unknown {
    if (low === 20 || low === 21) return low === 21;
    if (low === 22 || low === 23) return null;
    if (low === 25) return half(this.u16be());
    if (low === 26) return this.f32be();
    if (low === 27) return this.f64be();
    return this.fail(`the simple value ${low} is not used here`, start);
  }

  /** False at the end of a container; past the break of one without a length. */
  #goesOn(index: number, count: number): boolean {
    if (Number.isFinite(count)) return index < count;
    if (this.left === 0) this.fail("a value without a length does not end");
    const isEnd = this.peek() === BREAK;
    if (isEnd) this.u8();
    return !isEnd;
  }

  /** Items or bytes; each takes a byte at least. Infinite for one that ends by a break. */
  #count(low: number): number {
    if (low === INDEFINITE) return Number.POSITIVE_INFINITY;
    const start = this.at;
    const count = this.#argument(low);
    if (count > BigInt(this.left))
      this.fail(`${count} items are announced, ${this.left} bytes are left`, start);
    return Number(count);
  }

  #argument(low: number): bigint {
    if (low < 24) return BigInt(low);
    if (low === 24) return BigInt(this.u8());
    if (low === 25) return BigInt(this.u16be());
    if (low === 26) return BigInt(this.u32be());
    if (low === 27) return this.u64be();
    return this.fail(`the length ${low} is reserved`, this.at - 1);
  }
}

function small(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** IEEE 754 binary16 (RFC 8949, appendix D). */
function half(bits: number): number {
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
