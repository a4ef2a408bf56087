import { cloneFile, copyRange, dataRanges, eventLoopTurn, type Fd, truncateFile } from "../../src/sys/mod.ts";

/** Copied between two looks at Ctrl-C and the progress bar. */
const PIECE_BYTES = 16 << 20;

export interface CopyOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

/**
 * Makes an empty target the same as the image: by sharing its data where the file system can, else by copying what is no
 * hole. Returns how. @throws SyscallError, what `signal` was aborted with
 */
export async function copyImage(
  image: Fd,
  sizeBytes: number,
  target: Fd,
  { signal, onProgress }: CopyOptions = {},
): Promise<"reflink" | "copy"> {
  signal?.throwIfAborted();
  if (cloneFile(image, target)) return "reflink";
  truncateFile(target, sizeBytes);
  for (const range of dataRanges(image, sizeBytes)) {
    const end = range.offset + range.sizeBytes;
    for (let offset = range.offset; offset < end; offset += PIECE_BYTES) {
      copyRange(image, target, offset, Math.min(PIECE_BYTES, end - offset));
      onProgress?.(offset);
      await eventLoopTurn();
      signal?.throwIfAborted();
    }
  }
  return "copy";
}
