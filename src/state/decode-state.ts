import { FormatError } from "../errors.ts";
import { MAX_IN_MEMORY_STATE_BYTES } from "../limits.ts";
import type { StateHeader } from "./frame.ts";
import { StateDecoder } from "./state-decoder.ts";

export interface DecodedState {
  readonly header: StateHeader;
  /** By name, in the order of the stream; a bytes section is a Uint8Array. */
  readonly sections: Map<string, unknown>;
}

/**
 * A small device state, whole. Larger ones go through {@link StateDecoder} and a spool.
 *
 * @param maxBytes 4 MiB unless told.
 * @throws FormatError
 * @example
 * const { header, sections } = decodeState(bytes);
 */
export function decodeState(
  source: Uint8Array | Iterable<Uint8Array>,
  maxBytes = MAX_IN_MEMORY_STATE_BYTES,
): DecodedState {
  let header: StateHeader | undefined;
  const sections = new Map<string, unknown>();
  let pieces: Uint8Array[] = [];
  const decoder = new StateDecoder(
    {
      header: (value) => {
        header = value;
      },
      value: (name, value) => sections.set(name, value),
      bytes: (_name, chunk) => pieces.push(new Uint8Array(chunk)),
      bytesEnd: (name, sizeBytes) => {
        sections.set(name, join(pieces, sizeBytes));
        pieces = [];
      },
    },
    { maxBytes },
  );
  for (const chunk of source instanceof Uint8Array ? [source] : source) decoder.write(chunk);
  decoder.end();
  if (header === undefined) throw new FormatError("the state has no header", "state header", 0);
  return { header, sections };
}

function join(pieces: readonly Uint8Array[], sizeBytes: number): Uint8Array {
  const whole = new Uint8Array(sizeBytes);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
