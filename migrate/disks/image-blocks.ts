import { readSync } from "node:fs";
import { SyscallError } from "../../src/errors.ts";
import { dataRanges, eventLoopTurn, type Fd } from "../../src/sys/mod.ts";

export const IMAGE_BLOCK_BYTES = 1 << 20;

export interface WalkOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with how far it is. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

export interface ImageBlock {
  readonly index: number;
  /** Zeros after the image's end. The same buffer each time. */
  readonly bytes: Uint8Array;
}

const zeros = Buffer.alloc(IMAGE_BLOCK_BYTES);

/** The blocks of an image that are not all zeros, in order: wherever its holes are, it is the same blocks. */
export async function* imageBlocks(
  image: Fd,
  sizeBytes: number,
  { signal, onProgress }: WalkOptions = {},
): AsyncGenerator<ImageBlock, void> {
  const bytes = Buffer.alloc(IMAGE_BLOCK_BYTES);
  let next = 0;
  for (const range of dataRanges(image, sizeBytes)) {
    const end = Math.ceil((range.offset + range.sizeBytes) / IMAGE_BLOCK_BYTES);
    for (let index = Math.max(next, Math.floor(range.offset / IMAGE_BLOCK_BYTES)); index < end; index += 1) {
      signal?.throwIfAborted();
      const offset = index * IMAGE_BLOCK_BYTES;
      const count = Math.min(IMAGE_BLOCK_BYTES, sizeBytes - offset);
      fill(image, bytes.subarray(0, count), offset);
      bytes.fill(0, count);
      if (bytes.compare(zeros) !== 0) yield { index, bytes };
      onProgress?.(offset + count);
      await eventLoopTurn();
    }
    next = end;
  }
}

function fill(image: Fd, into: Buffer, offset: number): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(image.number, into, done, into.length - done, offset + done);
    if (count === 0) throw new SyscallError("pread", "ENODATA", image.label, { offset: offset + done });
    done += count;
  }
}
