import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { dataRanges, type Fd, Mapping } from "../../src/sys/mod.ts";
import type { MemoryPiece } from "../snapshot/mod.ts";

/** What a memfd holds, in order: pieces of at most 1 MiB, each valid until the next, and its holes as zeros. */
export function* memoryPieces(fd: Fd, sizeBytes: number): Generator<MemoryPiece, void> {
  using mapping = Mapping.ofFd(fd, { sizeBytes, readOnly: true });
  let position = 0;
  for (const range of dataRanges(fd, sizeBytes)) {
    if (range.offset > position) yield hole(position, range.offset);
    const end = range.offset + range.sizeBytes;
    for (position = range.offset; position < end; ) {
      const count = Math.min(end - position, MAX_SNAPSHOT_FRAME_BYTES);
      const window = mapping.window(position, count);
      yield { offset: position, sizeBytes: count, bytes: new Uint8Array(window) };
      mapping.closeWindow(window);
      position += count;
    }
  }
  if (position < sizeBytes) yield hole(position, sizeBytes);
}

function hole(from: number, to: number): MemoryPiece {
  return { offset: from, sizeBytes: to - from, isZero: true };
}
