import { statSync } from "node:fs";
import { UsageError } from "../../src/errors.ts";
import { cloneFile, copyRange, dataRanges, eventLoopTurn, type Fd, truncateFile } from "../../src/sys/mod.ts";
import type { DeviceStatus } from "./device-control-protocol.ts";

/** Copied between two looks at Ctrl-C and the progress bar. */
const PIECE_BYTES = 16 << 20;

export interface CopyOptions {
  readonly signal: AbortSignal;
  onProgress(doneBytes: number): void;
}

/**
 * Makes an empty target the same as the image: by sharing its data where the file system can, else by copying what is no
 * hole. Returns how. @throws SyscallError, what `signal` was aborted with
 */
export async function copyImage(
  image: Fd,
  sizeBytes: number,
  target: Fd,
  { signal, onProgress }: CopyOptions,
): Promise<"reflink" | "copy"> {
  signal.throwIfAborted();
  if (cloneFile(image, target)) return "reflink";
  truncateFile(target, sizeBytes);
  for (const range of dataRanges(image, sizeBytes)) {
    const end = range.offset + range.sizeBytes;
    for (let offset = range.offset; offset < end; offset += PIECE_BYTES) {
      copyRange(image, target, offset, Math.min(PIECE_BYTES, end - offset));
      onProgress(offset);
      await eventLoopTurn();
      signal.throwIfAborted();
    }
  }
  return "copy";
}

/** @throws UsageError for a device without an image, and where the target is the image */
export function checkTarget({ type, image }: DeviceStatus, target: string): { readonly sizeBytes: number } {
  if (image === undefined) throw new UsageError(`a ${type} device has no image to copy`);
  const [there, own] = [target, image.path].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (there !== undefined && own !== undefined && there.dev === own.dev && there.ino === own.ino) {
    throw new UsageError(`${target} is the image that the device runs on; give another name`);
  }
  return { sizeBytes: image.capacityBytes };
}
