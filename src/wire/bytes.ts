import { badValue, Codec, FieldFault, HiddenCodec } from "./codec.ts";

function copyOut(view: DataView, offset: number, end: number): Uint8Array {
  const copy = new Uint8Array(new ArrayBuffer(end - offset));
  copy.set(new Uint8Array(view.buffer, view.byteOffset + offset, end - offset));
  return copy;
}

function copyIn(view: DataView, offset: number, bytes: Uint8Array): number {
  new Uint8Array(view.buffer, view.byteOffset + offset, bytes.length).set(bytes);
  return offset + bytes.length;
}

class FixedBytes extends Codec<Uint8Array> {
  readonly minBytes: number;
  readonly maxBytes: number;
  constructor(sizeBytes: number) {
    super();
    this.minBytes = sizeBytes;
    this.maxBytes = sizeBytes;
  }
  read(view: DataView, offset: number, end: number): Uint8Array {
    return copyOut(view, offset, end);
  }
  write(view: DataView, offset: number, value: Uint8Array): number {
    if (value.length !== this.minBytes) badValue(`${this.minBytes} bytes`, `${value.length} bytes`);
    return copyIn(view, offset, value);
  }
}

/** Everything up to the end of the payload, within bounds and, where they are listed, of certain sizes only. */
class RemainingBytes extends Codec<Uint8Array> {
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly #sizes: readonly number[] | undefined;
  constructor(minBytes: number, maxBytes: number, sizes?: readonly number[]) {
    super();
    this.minBytes = minBytes;
    this.maxBytes = maxBytes;
    this.#sizes = sizes;
  }
  #fits(sizeBytes: number): boolean {
    if (this.#sizes !== undefined) return this.#sizes.includes(sizeBytes);
    return sizeBytes >= this.minBytes && sizeBytes <= this.maxBytes;
  }
  read(view: DataView, offset: number, end: number): Uint8Array {
    const sizeBytes = end - offset;
    if (!this.#fits(sizeBytes)) throw new FieldFault(`has ${sizeBytes} bytes`);
    return copyOut(view, offset, end);
  }
  write(view: DataView, offset: number, value: Uint8Array): number {
    if (!this.#fits(value.length)) badValue("the rest of a payload", `${value.length} bytes`);
    return copyIn(view, offset, value);
  }
  override sizeOf(value: Uint8Array): number {
    return value.length;
  }
}

/** Bytes that mean nothing. Compilers leave rubbish in padding, so peers' padding is not looked at; ours is 0. */
class Padding extends HiddenCodec {
  readonly minBytes: number;
  readonly maxBytes: number;
  constructor(sizeBytes: number) {
    super();
    this.minBytes = sizeBytes;
    this.maxBytes = sizeBytes;
  }
  read(): undefined {
    return undefined;
  }
  write(view: DataView, offset: number): number {
    const end = offset + this.minBytes;
    for (let i = offset; i < end; i++) view.setUint8(i, 0);
    return end;
  }
}

/** Reserved bits, not padding: a peer that sets them means something that we would miss. */
class Zeros extends Padding {
  override read(view?: DataView, offset = 0): undefined {
    for (let i = offset; view !== undefined && i < offset + this.minBytes; i++) {
      if (view.getUint8(i) !== 0) throw new FieldFault("has bits set that have no meaning");
    }
    return undefined;
  }
}

export const fixedBytes = (sizeBytes: number): Codec<Uint8Array> => new FixedBytes(sizeBytes);
export const remainingBytes = (minBytes: number, maxBytes: number): Codec<Uint8Array> =>
  new RemainingBytes(minBytes, maxBytes);
export const bytesOfSizes = (...sizes: number[]): Codec<Uint8Array> =>
  new RemainingBytes(Math.min(...sizes), Math.max(...sizes), sizes);
export const pad = (sizeBytes: number): HiddenCodec => new Padding(sizeBytes);
export const zeros = (sizeBytes: number): HiddenCodec => new Zeros(sizeBytes);
