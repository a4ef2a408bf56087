import assert from "node:assert/strict";
import { ProtocolError } from "../errors.ts";

/** Why one field cannot be decoded, and where it is. Leaves this folder only as a ProtocolError. */
export class FieldFault {
  readonly reason: string;
  readonly path: string;
  constructor(reason: string, path = "") {
    this.reason = reason;
    this.path = path;
  }

  /** The same fault seen from the field or element that contains it. */
  inside(parent: string): FieldFault {
    const joint = this.path === "" || this.path.startsWith("[") ? "" : ".";
    return new FieldFault(this.reason, `${parent}${joint}${this.path}`);
  }
}

/**
 * How a value of type `T` lies in a payload.
 *
 * Bytes are little-endian: the protocol asks for the machine's own order, and x86_64 and aarch64, the only machines
 * that vhu runs on, are little-endian.
 */
export abstract class Codec<T> {
  /** Fewest and most bytes that a value takes; equal where the size is fixed. */
  abstract readonly minBytes: number;
  abstract readonly maxBytes: number;

  /** Reads the value that occupies exactly `offset` to `end`. Throws FieldFault. */
  abstract read(view: DataView, offset: number, end: number): T;

  /** Writes a value and returns the offset behind it. A value that does not fit is our own bug: an assertion. */
  abstract write(view: DataView, offset: number, value: T): number;

  /** How many bytes `write` takes for this value. */
  sizeOf(_value: T): number {
    return this.minBytes;
  }

  /** The value's bytes, in a buffer of their own. */
  encode(value: T): Uint8Array {
    // Over an explicit ArrayBuffer: Bun moves the bytes of a small typed array when `.buffer` is first asked for.
    const buffer = new ArrayBuffer(this.sizeOf(value));
    this.write(new DataView(buffer), 0, value);
    return new Uint8Array(buffer);
  }

  /** Writes the value at `offset` and returns how many bytes it took. */
  encodeInto(value: T, view: DataView, offset: number): number {
    return this.write(view, offset, value) - offset;
  }

  /**
   * Decodes a whole payload. Byte fields are copies: the payload may be reused at once.
   *
   * @param request the message's name, for the error
   * @throws ProtocolError with the path of the field that is wrong, or "" for a wrong size
   */
  decode(payload: Uint8Array, request: string): T {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    return this.decodeFrom(view, 0, payload.byteLength, request);
  }

  /** Like `decode`, from `sizeBytes` bytes of a view that the caller already has. */
  decodeFrom(view: DataView, offset: number, sizeBytes: number, request: string): T {
    if (sizeBytes < this.minBytes || sizeBytes > this.maxBytes) {
      const { minBytes, maxBytes } = this;
      const expected = minBytes === maxBytes ? `${minBytes}` : `${minBytes} to ${maxBytes}`;
      throw new ProtocolError(`payload of ${sizeBytes} bytes, expected ${expected}`, request);
    }
    try {
      return this.read(view, offset, offset + sizeBytes);
    } catch (error) {
      if (error instanceof FieldFault) throw new ProtocolError(error.reason, request, error.path);
      throw error;
    }
  }
}

/** A field that is on the wire but not in the value. */
export abstract class HiddenCodec extends Codec<undefined> {
  readonly hidden = true;
}

/** What a codec decodes to. */
export type ValueOf<C> = C extends Codec<infer T> ? T : never;

/** Ends the program: a caller passed a value that its own field cannot hold. */
export function badValue(kind: string, value: unknown): never {
  assert.fail(`${String(value)} does not fit in ${kind}`);
}
