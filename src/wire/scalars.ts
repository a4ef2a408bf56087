import { badValue, Codec, FieldFault } from "./codec.ts";

const TWO_32 = 0x1_0000_0000;
/** The high half of 2^53-1. */
const MAX_SAFE_HIGH = 0x1f_ffff;
const MAX_U64 = 0xffff_ffff_ffff_ffffn;

abstract class FixedCodec<T> extends Codec<T> {
  readonly minBytes: number;
  readonly maxBytes: number;
  constructor(sizeBytes: number) {
    super();
    this.minBytes = sizeBytes;
    this.maxBytes = sizeBytes;
  }
}

class U8 extends FixedCodec<number> {
  read(view: DataView, offset: number): number {
    return view.getUint8(offset);
  }
  write(view: DataView, offset: number, value: number): number {
    if ((value & 0xff) !== value) badValue("u8", value);
    view.setUint8(offset, value);
    return offset + 1;
  }
}

class U16 extends FixedCodec<number> {
  read(view: DataView, offset: number): number {
    return view.getUint16(offset, true);
  }
  write(view: DataView, offset: number, value: number): number {
    if ((value & 0xffff) !== value) badValue("u16", value);
    view.setUint16(offset, value, true);
    return offset + 2;
  }
}

class U32 extends FixedCodec<number> {
  read(view: DataView, offset: number): number {
    return view.getUint32(offset, true);
  }
  write(view: DataView, offset: number, value: number): number {
    if (value >>> 0 !== value) badValue("u32", value);
    view.setUint32(offset, value, true);
    return offset + 4;
  }
}

/** Two 32-bit halves: a BigInt on the way costs ten times as much. */
class U64 extends FixedCodec<number> {
  read(view: DataView, offset: number): number {
    const high = view.getUint32(offset + 4, true);
    if (high > MAX_SAFE_HIGH)
      throw new FieldFault("is above 2^53-1, which no address or size of a real machine is");
    return high * TWO_32 + view.getUint32(offset, true);
  }
  write(view: DataView, offset: number, value: number): number {
    if (value < 0 || !Number.isSafeInteger(value)) badValue("u64 below 2^53", value);
    view.setUint32(offset, value >>> 0, true);
    view.setUint32(offset + 4, Math.floor(value / TWO_32), true);
    return offset + 8;
  }
}

class Mask64 extends FixedCodec<bigint> {
  read(view: DataView, offset: number): bigint {
    return view.getBigUint64(offset, true);
  }
  write(view: DataView, offset: number, value: bigint): number {
    if (typeof value !== "bigint" || value < 0n || value > MAX_U64) badValue("mask64", value);
    view.setBigUint64(offset, value, true);
    return offset + 8;
  }
}

class Flag extends FixedCodec<boolean> {
  read(view: DataView, offset: number): boolean {
    const byte = view.getUint8(offset);
    if (byte > 1) throw new FieldFault(`is 0x${byte.toString(16)}, only bit 0 has a meaning`);
    return byte === 1;
  }
  write(view: DataView, offset: number, value: boolean): number {
    view.setUint8(offset, value ? 1 : 0);
    return offset + 1;
  }
}

/** A u8 on the wire that stands for another number in the value. */
class Translated extends FixedCodec<number> {
  readonly #toValue: ReadonlyMap<number, number>;
  readonly #toWire: ReadonlyMap<number, number>;
  constructor(pairs: readonly (readonly [wire: number, value: number])[]) {
    super(1);
    this.#toValue = new Map(pairs);
    this.#toWire = new Map(pairs.map(([wire, value]) => [value, wire]));
  }
  read(view: DataView, offset: number): number {
    const wire = view.getUint8(offset);
    const value = this.#toValue.get(wire);
    if (value === undefined)
      throw new FieldFault(`is ${wire}, expected ${[...this.#toValue.keys()].join(" or ")}`);
    return value;
  }
  write(view: DataView, offset: number, value: number): number {
    view.setUint8(offset, this.#toWire.get(value) ?? badValue("a translated u8", value));
    return offset + 1;
  }
}

/** A field that this layout lacks: no bytes, always 0. */
class Absent extends FixedCodec<number> {
  read(): number {
    return 0;
  }
  write(_view: DataView, offset: number, value: number): number {
    if (value !== 0) badValue("a field that this dialect lacks", value);
    return offset;
  }
}

export const u8: Codec<number> = new U8(1);
export const u16: Codec<number> = new U16(2);
export const u32: Codec<number> = new U32(4);
/** An address, offset or size as a number. More than 2^53-1 is refused. */
export const u64: Codec<number> = new U64(8);
/** 64 opaque bits: feature masks, acks, IOTLB fields. */
export const mask64: Codec<bigint> = new Mask64(8);
/** One byte of which only bit 0 may be set. */
export const flag: Codec<boolean> = new Flag(1);
export const absent: Codec<number> = new Absent(0);
export const translated = (pairs: readonly (readonly [wire: number, value: number])[]): Codec<number> =>
  new Translated(pairs);
