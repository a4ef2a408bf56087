import { expect } from "bun:test";
import { ProtocolError } from "../../src/errors.ts";
import type { Codec } from "../../src/wire/mod.ts";
import { shapeOf } from "./wire-arbitraries.ts";

/**
 * What must hold for any bytes whatever: they decode to a value that is encoded to the same bytes, apart from padding,
 * or they are refused with a ProtocolError for this request. Returns "accepted" or the refused field's path.
 */
export function checkDecode(codec: Codec<unknown>, payload: Uint8Array, request: string): string {
  let value: unknown;
  try {
    value = codec.decode(payload, request);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    expect(error.request).toBe(request);
    return `refused ${error.path}`.trimEnd();
  }
  const again = codec.encode(value);
  // The one payload with two encodings: the error of GET_CONFIG may be empty, and is then encoded as a header.
  const canonical = payload.length === 0 && again.length === 12 ? new Uint8Array(12) : payload.slice();
  const { isPadding } = shapeOf(codec);
  for (let i = 0; i < canonical.length; i++) if (isPadding(i)) canonical[i] = 0;
  if (Buffer.compare(again, canonical) !== 0) expect(again).toEqual(canonical);
  return "accepted";
}
