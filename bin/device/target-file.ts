import { lstatSync, realpathSync, renameSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { UsageError } from "../../src/errors.ts";
import { type Fd, O, openFile, syncFile } from "../../src/sys/mod.ts";

/** A file that appears under its name only when it is whole and on disk; until then it has another one. */
export class TargetFile implements Disposable {
  readonly fd: Fd;
  readonly #temporaryPath: string;
  #isPublished = false;

  /** @throws UsageError for what is no regular file, SyscallError */
  constructor(readonly path: string) {
    this.path = resolveTarget(path);
    this.#temporaryPath = `${this.path}.${process.pid}.partial`;
    this.fd = openFile(this.#temporaryPath, O.RDWR | O.CREAT | O.EXCL, 0o600);
  }

  /** Replaces what had the name. */
  publish(): void {
    syncFile(this.fd);
    renameSync(this.#temporaryPath, this.path);
    this.#isPublished = true;
    using folder = openFile(dirname(this.path), O.RDONLY);
    syncFile(folder);
  }

  /** Without `publish`: leaves nothing behind. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
    if (!this.#isPublished) unlinkSync(this.#temporaryPath);
  }
}

/** The name to replace: that of the file behind a symbolic link, so that the link stays. */
function resolveTarget(path: string): string {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined || found.isFile()) return path;
  if (found.isSymbolicLink()) return resolveTarget(realpathSync(path));
  throw new UsageError(`${path} is not a regular file: give a file's name`);
}
