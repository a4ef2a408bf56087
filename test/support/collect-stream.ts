import { type ParsedStream, StreamParser } from "../../migrate/qemu/stream-parser.ts";

/** Guest memory as a stream gave it: the last content of each page that came. */
export type CollectedMemory = Map<string, Uint8Array | "zero">;

/** Parses a whole stream, pushed in pieces. */
export function collectStream(
  bytes: Uint8Array,
  pieces: (remaining: number) => number = (remaining) => remaining,
): { parsed: ParsedStream; memory: CollectedMemory } {
  const memory: CollectedMemory = new Map();
  const parser = new StreamParser({
    blocks: () => {},
    page: (block, offset, page) => memory.set(`${block}:${offset}`, page.slice()),
    zeroPage: (block, offset) => memory.set(`${block}:${offset}`, "zero"),
  });
  for (let at = 0; at < bytes.length; ) {
    const count = Math.max(1, Math.min(pieces(bytes.length - at), bytes.length - at));
    // In turn: a buffer that is read in place, one with too little in front, one with enough; all are used again at once.
    const headroomBytes = [0, 16, 8192][at % 3]!;
    const buffer = new Uint8Array(headroomBytes + count);
    buffer.set(bytes.subarray(at, at + count), headroomBytes);
    parser.push(buffer.subarray(headroomBytes), headroomBytes);
    buffer.fill(0xee);
    at += count;
  }
  return { parsed: parser.finish(), memory };
}

/** Pieces that are valid until the next, as one. */
export function joined(pieces: Iterable<Uint8Array>): Uint8Array {
  const copies: Uint8Array[] = [];
  for (const piece of pieces) copies.push(piece.slice());
  return Buffer.concat(copies);
}
