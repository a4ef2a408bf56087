import { ByteReader } from "./byte-reader.ts";

/**
 * A vhost-user back-end's state as QEMU puts it into its stream: pieces of (be32 length, bytes), ended by a length of 0.
 *
 * @returns the back-end's own bytes, and how long all of it was
 * @throws FormatError where a piece is longer than what is there
 */
export function readBackendBlob(bytes: Uint8Array): { state: Uint8Array; sizeBytes: number } {
  // Twice: a list of pieces could be far larger than what they hold.
  let stateBytes = 0;
  const sizeBytes = eachPiece(bytes, (piece) => {
    stateBytes += piece.length;
  });
  const state = new Uint8Array(stateBytes);
  let at = 0;
  eachPiece(bytes, (piece) => {
    state.set(piece, at);
    at += piece.length;
  });
  return { state, sizeBytes };
}

function eachPiece(bytes: Uint8Array, visit: (piece: Uint8Array) => void): number {
  const reader = new ByteReader(bytes, "back-end state");
  for (;;) {
    const length = reader.u32();
    if (length === 0) return reader.offset;
    visit(reader.take(length));
  }
}
