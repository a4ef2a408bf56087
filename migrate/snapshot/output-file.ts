import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  openSync,
  realpathSync,
  renameSync,
  unlinkSync,
} from "node:fs";
import { dirname } from "node:path";
import { SyscallError, UsageError } from "../../src/errors.ts";
import { linkFile, O } from "../../src/sys/mod.ts";
import { O_CLOEXEC, syncDirectory, systemCall } from "./file-io.ts";
import { removeLeftovers, temporaryName } from "./temporary-name.ts";

/**
 * A file that appears under its name when it is whole. Until then it has no name at all, so that nothing is left when
 * the process is killed; or, where the file system cannot do that, a temporary one, which the next writer removes.
 */
export class OutputFile implements Disposable {
  readonly path: string;
  readonly fd: number;
  /** Where the file is now, if it has a name that is not the final one. */
  #temporaryPath: string | undefined;
  #isOpen = true;

  /** @throws SyscallError, UsageError if `path` is something else than a regular file. */
  constructor(path: string) {
    this.path = resolveTarget(path);
    removeLeftovers(this.path);
    const unnamed = openUnnamed(dirname(this.path), path);
    if (unnamed !== undefined) {
      this.fd = unnamed;
      return;
    }
    const temporaryPath = temporaryName(this.path);
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | O_CLOEXEC;
    this.fd = systemCall("open", path, () => openSync(temporaryPath, flags, 0o600));
    this.#temporaryPath = temporaryPath;
  }

  /** On disk, then under its name; the name on disk as well. */
  publish(): void {
    systemCall("fsync", this.path, () => fsyncSync(this.fd));
    if (this.#temporaryPath === undefined && !this.#linkedToNewName()) {
      // A name that exists can only be replaced by renaming another one over it.
      const temporaryPath = temporaryName(this.path);
      linkFile(this.fd, temporaryPath);
      this.#temporaryPath = temporaryPath;
    }
    const from = this.#temporaryPath;
    if (from !== undefined) systemCall("rename", this.path, () => renameSync(from, this.path));
    this.#temporaryPath = undefined;
    syncDirectory(dirname(this.path));
  }

  /** Without `publish`: nothing is left of it. */
  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.fd);
    const path = this.#temporaryPath;
    if (path !== undefined) systemCall("unlink", path, () => unlinkSync(path));
  }

  #linkedToNewName(): boolean {
    try {
      linkFile(this.fd, this.path);
      return true;
    } catch (error) {
      if (error instanceof SyscallError && error.errno === "EEXIST") return false;
      throw error;
    }
  }
}

/** A file without a name; undefined where the file system has none (an old overlay, NFS). */
export function openUnnamed(directory: string, what: string): number | undefined {
  try {
    const flags = constants.O_RDWR | O_CLOEXEC | O.TMPFILE;
    return systemCall("open", what, () => openSync(directory, flags, 0o600));
  } catch (error) {
    if (error instanceof SyscallError && ["EOPNOTSUPP", "EISDIR"].includes(error.errno)) return undefined;
    throw error;
  }
}

/** The name to replace: that of the file behind a symbolic link, so that the link stays. */
function resolveTarget(path: string): string {
  const stats = systemCall("lstat", path, () => lstatSync(path, { throwIfNoEntry: false }));
  if (stats === undefined || stats.isFile()) return path;
  if (stats.isSymbolicLink()) return resolveTarget(systemCall("realpath", path, () => realpathSync(path)));
  throw new UsageError(`${path} is not a regular file: give a file name, or "-" for stdout`);
}
