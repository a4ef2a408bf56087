import { FormatError } from "../../src/errors.ts";

/**
 * Reads the fields of a plain object that came out of a device state, each checked as it is read.
 *
 * @example
 * const fields = new StateFields(value, "console state");
 * const state = { columns: fields.integer("columns", 0, 0xffff) };
 * fields.end();
 */
export class StateFields {
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #unread: Set<string>;
  readonly #children: StateFields[] = [];

  /** @throws FormatError when `value` is no plain object */
  constructor(
    value: unknown,
    readonly section: string,
  ) {
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    if (!isObject || value instanceof Uint8Array) throw new FormatError("expected an object", section);
    this.#object = value as Record<string, unknown>;
    this.#unread = new Set(Object.keys(value));
  }

  /** A whole number from `least` to `most`, at most 2^53-1. */
  integer(name: string, least: number, most: number): number {
    const value = this.#take(name);
    // A number that needs more than 32 bits may come back as a bigint.
    const number = typeof value === "bigint" ? Number(value) : value;
    if (typeof number === "number" && Number.isSafeInteger(number) && number >= least && number <= most) {
      return number;
    }
    return this.#fail(name, `a whole number from ${least} to ${most}`);
  }

  boolean(name: string): boolean {
    const value = this.#take(name);
    return typeof value === "boolean" ? value : this.#fail(name, "true or false");
  }

  /** A string of at most `maxBytes` bytes of UTF-8. */
  string(name: string, maxBytes: number): string {
    const value = this.#take(name);
    if (typeof value === "string" && Buffer.byteLength(value) <= maxBytes) return value;
    return this.#fail(name, `a string of at most ${maxBytes} bytes`);
  }

  /** A copy of a byte string of at most `maxBytes` bytes. */
  bytes(name: string, maxBytes: number): Uint8Array {
    const value = this.#take(name);
    if (value instanceof Uint8Array && value.length <= maxBytes) return new Uint8Array(value);
    return this.#fail(name, `at most ${maxBytes} bytes`);
  }

  /** A list of at most `maxCount` plain objects, each read by `read`; what that leaves unread is refused by `end`. */
  objects<T>(name: string, maxCount: number, read: (fields: StateFields) => T): T[] {
    const value = this.#take(name);
    if (!Array.isArray(value) || value.length > maxCount) {
      return this.#fail(name, `a list of at most ${maxCount} objects`);
    }
    return value.map((item, index) => {
      const fields = new StateFields(item, `${this.section}, ${name}[${index}]`);
      this.#children.push(fields);
      return read(fields);
    });
  }

  /** @throws FormatError when the object, or one in it, has a field that nobody asked for */
  end(): void {
    for (const child of this.#children) child.end();
    const [first] = this.#unread;
    if (first !== undefined) throw new FormatError(`the field "${first}" is not known`, this.section);
  }

  #take(name: string): unknown {
    if (!Object.hasOwn(this.#object, name)) {
      throw new FormatError(`the field "${name}" is missing`, this.section);
    }
    this.#unread.delete(name);
    return this.#object[name];
  }

  #fail(name: string, expected: string): never {
    throw new FormatError(`the field "${name}" is not ${expected}`, this.section);
  }
}
