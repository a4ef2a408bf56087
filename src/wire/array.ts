import { badValue, Codec, FieldFault, HiddenCodec } from "./codec.ts";

/** Elements of one fixed size, one behind the other; how many follows from the bytes there are. */
class ArrayCodec<T> extends Codec<readonly T[]> {
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly #element: Codec<T>;
  constructor(element: Codec<T>, minCount: number, maxCount: number) {
    super();
    this.#element = element;
    this.minBytes = minCount * element.minBytes;
    this.maxBytes = maxCount * element.minBytes;
  }
  read(view: DataView, offset: number, end: number): readonly T[] {
    const element = this.#element;
    const step = element.minBytes;
    if ((end - offset) % step !== 0) throw new FieldFault(`ends within an element of ${step} bytes`);
    const values: T[] = [];
    let at = offset;
    try {
      for (; at < end; at += step) values.push(element.read(view, at, at + step));
    } catch (error) {
      throw error instanceof FieldFault ? error.inside(`[${(at - offset) / step}]`) : error;
    }
    return values;
  }
  write(view: DataView, offset: number, value: readonly T[]): number {
    const sizeBytes = this.sizeOf(value);
    if (sizeBytes < this.minBytes || sizeBytes > this.maxBytes)
      badValue("an array", `${value.length} elements`);
    let at = offset;
    for (const item of value) at = this.#element.write(view, at, item);
    return at;
  }
  override sizeOf(value: readonly T[]): number {
    return value.length * this.#element.minBytes;
  }
}

/** How many elements or bytes the last field of the same struct has. */
export interface Counter {
  readonly counter: Codec<number> | Codec<bigint>;
  readonly maxCount: number;
  readonly elementBytes: number;
}

/** The count of the last field, on the wire but not in the value: there the array's own length says it. */
class HiddenCount extends HiddenCodec implements Counter {
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly counter: Codec<number>;
  readonly maxCount: number;
  readonly elementBytes: number;
  constructor(counter: Codec<number>, maxCount: number, elementBytes: number) {
    super();
    this.counter = counter;
    this.maxCount = maxCount;
    this.elementBytes = elementBytes;
    this.minBytes = counter.minBytes;
    this.maxBytes = counter.maxBytes;
  }
  read(): undefined {
    return undefined;
  }
  write(): number {
    return badValue("a hidden count", "a value of its own");
  }
}

/** The length of the last field, in the value as well. */
class VisibleLength extends Codec<number> implements Counter {
  readonly minBytes: number;
  readonly maxBytes: number;
  readonly counter: Codec<number>;
  readonly maxCount: number;
  readonly elementBytes = 1;
  constructor(counter: Codec<number>, maxCount: number) {
    super();
    this.counter = counter;
    this.maxCount = maxCount;
    this.minBytes = counter.minBytes;
    this.maxBytes = counter.maxBytes;
  }
  read(view: DataView, offset: number, end: number): number {
    return this.counter.read(view, offset, end);
  }
  write(view: DataView, offset: number, value: number): number {
    return this.counter.write(view, offset, value);
  }
}

export const isCounter = (codec: object): codec is HiddenCount | VisibleLength =>
  codec instanceof HiddenCount || codec instanceof VisibleLength;

/** As many elements as there are bytes for, at most `maxCount`; a `countOf` field before it says how many. */
export const array = <T>(element: Codec<T>, maxCount: number): Codec<readonly T[]> =>
  new ArrayCodec(element, 0, maxCount);
/** Exactly `count` elements. */
export const fixedArray = <T>(element: Codec<T>, count: number): Codec<readonly T[]> =>
  new ArrayCodec(element, count, count);
/** A field that counts the elements of the struct's last field, which must agree. */
export const countOf = <T>(counter: Codec<number>, element: Codec<T>, maxCount: number): HiddenCodec =>
  new HiddenCount(counter, maxCount, element.minBytes);
/** A field that gives the bytes of the struct's last field, which must agree. */
export const lengthOf = (counter: Codec<number>, maxBytes: number): Codec<number> =>
  new VisibleLength(counter, maxBytes);
