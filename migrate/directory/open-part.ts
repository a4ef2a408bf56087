import { constants, fstatSync } from "node:fs";
import { FormatError, SyscallError } from "../../src/errors.ts";
import { type Fd, O, openFile } from "../../src/sys/mod.ts";

/** A file of a directory, open for reading. */
export interface DirectoryPart extends Disposable {
  readonly file: Fd;
  readonly sizeBytes: number;
}

/**
 * Only what is a file itself: the directory may come from somebody else, and a link in it would bring a file of its reader into the
 * snapshot, a pipe would hold him up.
 *
 * @throws FormatError for anything else, SyscallError
 */
export function openPart(path: string): DirectoryPart {
  const file = open(path);
  const stats = fstatSync(file.number);
  if (stats.isFile()) return { file, sizeBytes: stats.size, [Symbol.dispose]: () => file[Symbol.dispose]() };
  file[Symbol.dispose]();
  throw notAFile(path);
}

/** As `openPart`; undefined where there is nothing of that name. */
export function openPartIfThere(path: string): DirectoryPart | undefined {
  try {
    return openPart(path);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === "ENOENT") return undefined;
    throw error;
  }
}

function open(path: string): Fd {
  try {
    return openFile(path, O.RDONLY | O.NONBLOCK | constants.O_NOFOLLOW);
  } catch (error) {
    // What is a link, and what is a socket.
    const isOther = error instanceof SyscallError && ["ELOOP", "ENXIO"].includes(error.errno);
    throw isOther ? notAFile(path) : error;
  }
}

function notAFile(path: string): FormatError {
  return new FormatError("it is not a file itself, but a link, a pipe or the like", path);
}
