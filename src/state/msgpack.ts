/**
 * msgpackr, loaded when the first state is packed or unpacked: it costs 17 ms, which `vhu --version` must not pay.
 */
import { createRequire } from "node:module";
import { FormatError, UsageError } from "../errors.ts";
import { validateMsgpack } from "./validate-msgpack.ts";

interface Codec {
  pack(value: unknown): Uint8Array;
  unpack(bytes: Uint8Array): unknown;
}

let codec: Codec | undefined;

function loadCodec(): Codec {
  if (codec === undefined) {
    const { Packr } = createRequire(import.meta.url)("msgpackr") as typeof import("msgpackr");
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
    const bytes = loadCodec().pack(value);
    validateMsgpack(bytes, name, 0);
    return bytes;
  } catch (cause) {
    throw new UsageError(`${name} cannot be stored in a device state: ${(cause as Error).message}`, {
      cause,
    });
  }
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
