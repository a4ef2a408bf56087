const PIECE_BYTES = 1 << 20;

/** A large part of a state, the same each time: pseudo-random pieces of 1 MiB, in the memory of one. */
export function* stateBulk(sizeBytes: number): Generator<Uint8Array> {
  const piece = new Uint8Array(PIECE_BYTES);
  const words = new Uint32Array(piece.buffer);
  let state = 1;
  for (let left = sizeBytes; left > 0; left -= PIECE_BYTES) {
    for (let i = 0; i < words.length; i += 64)
      words[i] = state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield piece.subarray(0, Math.min(left, PIECE_BYTES));
  }
}
