import { Fd } from "../../src/sys/mod.ts";

/** The image's fds by their numbers, for another thread. */
export interface ImageFileNumbers {
  readonly buffered: number;
  /** Opened with O_DIRECT. */
  readonly direct: number | undefined;
}

/** The fds of an image that requests go through. */
export interface ImageFiles {
  readonly buffered: Fd;
  readonly direct: Fd | undefined;
}

/** The fds of another thread: given up with `giveBack`, never closed. */
export function borrowFiles(numbers: ImageFileNumbers): ImageFiles {
  return {
    buffered: new Fd(numbers.buffered, "image"),
    direct: numbers.direct === undefined ? undefined : new Fd(numbers.direct, "image (O_DIRECT)"),
  };
}

export function giveBack(files: ImageFiles): void {
  files.buffered.take();
  files.direct?.take();
}

/** The least that O_DIRECT can ask of offsets, lengths and addresses; where a file system asks for more, it says EINVAL. */
export const DIRECT_ALIGNMENT = 512;
