/**
 * msgpackr, loaded when the first state is packed or unpacked: it costs 17 ms, which `vhu --version` must not pay.
 */
import { FormatError, UsageError } from "../errors.ts";
import { MAX_STATE_VALUE_DEPTH } from "../limits.ts";
import { validateMsgpack } from "./validate-msgpack.ts";

interface Codec {
  pack(value: unknown): Uint8Array;
  unpack(bytes: Uint8Array): unknown;
}

let codec: Codec | undefined;

function loadCodec(): Codec {
  if (codec === undefined) {
    const { Packr } = require("msgpackr") as typeof import("msgpackr");
    codec = new Packr({ useRecords: false, mapsAsObjects: true });
  }
  return codec;
}

/**
 * One value as msgpack: null, booleans, numbers, bigints of 64 bits, strings, Uint8Array, arrays and plain objects.
 *
 * @throws UsageError for what the format does not carry (undefined, Date, Set, cycles, more than 32 levels, …).
 */
export function packValue(value: unknown, name: string): Uint8Array {
  try {
    expectPlain(value, 0);
    const bytes = loadCodec().pack(value);
    validateMsgpack(bytes, name, 0);
    return bytes;
  } catch (cause) {
    throw new UsageError(`${name} cannot be stored in a device state: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** msgpackr would turn a Set into an array and other classes into something else again: what goes in must come out. */
function expectPlain(value: unknown, depth: number): void {
  if (value === null || ["boolean", "number", "bigint"].includes(typeof value)) return;
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new Error("a string has a lone surrogate");
    return;
  }
  if (typeof value !== "object") throw new Error(`a ${typeof value} is no value`);
  if (value instanceof Uint8Array) return;
  if (depth >= MAX_STATE_VALUE_DEPTH) throw new Error(`it has more than ${MAX_STATE_VALUE_DEPTH} levels`);
  const isPlain = Array.isArray(value) || [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (!isPlain) throw new Error(`a ${value.constructor.name} is no plain object`);
  for (const member of Object.values(value)) expectPlain(member, depth + 1);
}

/**
 * The value in `bytes`, which are validated in full before msgpackr sees them. Binary values are views of `bytes`.
 *
 * @param offset Where `bytes` stand in the input, for the error.
 * @throws FormatError
 */
export function unpackValue(bytes: Uint8Array, section: string, offset: number): unknown {
  validateMsgpack(bytes, section, offset);
  try {
    return loadCodec().unpack(bytes);
  } catch (cause) {
    throw new FormatError("the value cannot be decoded", section, offset, { cause });
  }
}
