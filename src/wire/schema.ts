import assert from "node:assert/strict";
import { isCounter } from "./array.ts";
import { badValue, Codec, FieldFault, HiddenCodec, type ValueOf } from "./codec.ts";

type Fields = Readonly<Record<string, Codec<unknown>>>;

/** The value of a struct: every field but the hidden ones. */
export type StructValue<F> = {
  readonly [K in keyof F as F[K] extends HiddenCodec ? never : K]: ValueOf<F[K]>;
};

interface Field {
  readonly name: string;
  readonly codec: Codec<unknown>;
  /** -1 for the last field where its size varies. */
  readonly sizeBytes: number;
  readonly hidden: boolean;
}

/** The field that counts the last one, read before it and compared with what is really there. */
interface CountField {
  readonly name: string;
  readonly codec: Codec<number>;
  readonly offset: number;
  readonly maxCount: number;
  readonly elementBytes: number;
  readonly visible: boolean;
}

type Sized = { readonly length: number };

class StructCodec extends Codec<Record<string, unknown>> {
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly #fields: readonly Field[];
  readonly #tail: Field | undefined;
  readonly #fixedBytes: number;
  readonly #count: CountField | undefined;

  constructor(fields: Fields) {
    super();
    const list = Object.entries(fields).map(([name, codec]) => ({
      name,
      codec,
      sizeBytes: codec.minBytes === codec.maxBytes ? codec.minBytes : -1,
      hidden: codec instanceof HiddenCodec,
    }));
    const varying = list.findIndex((field) => field.sizeBytes < 0);
    assert.ok(varying < 0 || varying === list.length - 1, "only the last field of a struct may vary in size");
    this.#fields = list;
    this.#tail = varying < 0 ? undefined : list[varying];
    this.#fixedBytes = list.reduce((sum, field) => sum + Math.max(field.sizeBytes, 0), 0);
    this.#count = findCount(list);
    this.minBytes = this.#fixedBytes + (this.#tail?.codec.minBytes ?? 0);
    this.maxBytes = this.#fixedBytes + (this.#tail?.codec.maxBytes ?? 0);
  }

  read(view: DataView, offset: number, end: number): Record<string, unknown> {
    if (this.#count !== undefined) checkCount(this.#count, view, offset, end - offset - this.#fixedBytes);
    const fields = this.#fields;
    const value: Record<string, unknown> = {};
    let at = offset;
    let i = 0;
    try {
      for (; i < fields.length; i++) {
        const field = fields[i]!;
        const next = field.sizeBytes < 0 ? end : at + field.sizeBytes;
        const read = field.codec.read(view, at, next);
        if (!field.hidden) value[field.name] = read;
        at = next;
      }
    } catch (error) {
      throw error instanceof FieldFault ? error.inside(fields[i]!.name) : error;
    }
    return value;
  }

  write(view: DataView, offset: number, value: Record<string, unknown>): number {
    const fields = this.#fields;
    const count = this.#count;
    let at = offset;
    for (let i = 0; i < fields.length; i++) {
      const field = fields[i]!;
      if (count !== undefined && field.name === count.name) at = this.#writeCount(count, view, at, value);
      else at = field.codec.write(view, at, value[field.name]);
    }
    return at;
  }

  #writeCount(count: CountField, view: DataView, offset: number, value: Record<string, unknown>): number {
    const { length } = value[this.#tail!.name] as Sized;
    if (count.visible && value[count.name] !== length)
      badValue(`${count.name} = ${length}`, value[count.name]);
    return count.codec.write(view, offset, length);
  }

  override sizeOf(value: Record<string, unknown>): number {
    const tail = this.#tail;
    return tail === undefined ? this.#fixedBytes : this.#fixedBytes + tail.codec.sizeOf(value[tail.name]);
  }
}

function findCount(fields: readonly Field[]): CountField | undefined {
  let offset = 0;
  for (const { name, codec, sizeBytes, hidden } of fields) {
    if (isCounter(codec)) {
      const { counter, maxCount, elementBytes } = codec;
      return { name, codec: counter, offset, maxCount, elementBytes, visible: !hidden };
    }
    offset += sizeBytes;
  }
  return undefined;
}

function checkCount(count: CountField, view: DataView, offset: number, tailBytes: number): void {
  const claimed = readCount(count, view, offset + count.offset);
  if (claimed > count.maxCount)
    throw new FieldFault(`is ${claimed}, the limit is ${count.maxCount}`, count.name);
  if (claimed * count.elementBytes !== tailBytes) {
    throw new FieldFault(`is ${claimed}, but ${tailBytes} bytes follow`, count.name);
  }
}

function readCount(count: CountField, view: DataView, offset: number): number {
  try {
    return count.codec.read(view, offset, offset + count.codec.minBytes);
  } catch (error) {
    throw error instanceof FieldFault ? error.inside(count.name) : error;
  }
}

/** A zero-size payload that some peers send where others send a struct. */
class OrEmptyCodec<T> extends Codec<T> {
  readonly minBytes = 0;
  readonly maxBytes: number;
  readonly #inner: Codec<T>;
  readonly #whenEmpty: T;
  constructor(inner: Codec<T>, whenEmpty: T) {
    super();
    this.#inner = inner;
    this.#whenEmpty = whenEmpty;
    this.maxBytes = inner.maxBytes;
  }
  read(view: DataView, offset: number, end: number): T {
    if (offset === end) return this.#whenEmpty;
    const sizeBytes = end - offset;
    if (sizeBytes < this.#inner.minBytes) throw new FieldFault(`payload of ${sizeBytes} bytes is too short`);
    return this.#inner.read(view, offset, end);
  }
  write(view: DataView, offset: number, value: T): number {
    return this.#inner.write(view, offset, value);
  }
  override sizeOf(value: T): number {
    return this.#inner.sizeOf(value);
  }
}

/** Fields one behind the other in the order of the literal, without any gap that is not declared as `pad`. */
export const struct = <const F extends Fields>(fields: F): Codec<StructValue<F>> =>
  new StructCodec(fields) as unknown as Codec<StructValue<F>>;

/** `inner`, or nothing at all, which decodes to `whenEmpty`. Encoding always gives the full form. */
export const orEmpty = <T>(inner: Codec<T>, whenEmpty: T): Codec<T> => new OrEmptyCodec(inner, whenEmpty);
