import { fstatSync, lstatSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { StateError, SyscallError } from "../../src/errors.ts";
import { type Fd, linkFile, O, openFile, openTemporaryFile, truncateFile } from "../../src/sys/mod.ts";
import { ImageFile } from "./image-file.ts";
import { Qcow2Layout } from "./qcow2-layout.ts";

export type ImageFormat = "raw" | "qcow2";

/** A disk's image that is yet to be made. */
export interface ImageOutline {
  readonly path: string;
  readonly format: ImageFormat;
  /** Of the disk, as its machine sees it. */
  readonly virtualBytes: number;
}

/** Which file it was: another one may have its name by now. */
export interface ImageIdentity {
  readonly path: string;
  readonly device: string;
  readonly inode: string;
}

/** An image that vhu makes: an empty disk at first, which whoever serves it may open already. */
export class NewImage implements Disposable {
  readonly #fd: Fd;
  readonly #file: ImageFile;
  readonly #layout: Qcow2Layout | undefined;
  readonly identity: ImageIdentity;

  private constructor(
    fd: Fd,
    readonly outline: ImageOutline,
  ) {
    this.#fd = fd;
    this.#file = new ImageFile(fd, outline.path);
    if (outline.format === "qcow2") this.#layout = new Qcow2Layout(this.#file, outline.virtualBytes);
    else truncateFile(fd, outline.virtualBytes);
    this.identity = identityOf(fd, outline.path);
  }

  /** The largest disk that a format can have here. */
  static maxBytes(format: ImageFormat): number {
    return format === "qcow2" ? Qcow2Layout.maxVirtualBytes : Number.MAX_SAFE_INTEGER;
  }

  /**
   * Never over a file that is there.
   * @param note Told which file it will be, before it has its name: whoever is killed in between has left nothing
   * @throws StateError when the name is taken, SyscallError
   */
  static create(outline: ImageOutline, note: (identity: ImageIdentity) => void): NewImage {
    using stack = new DisposableStack();
    const { path } = outline;
    const fd = stack.use(openUnnamed(path));
    const image = new NewImage(fd ?? stack.use(openNamed(path)), outline);
    note(image.identity);
    if (fd !== undefined) orTaken(path, () => linkFile(fd.number, path));
    stack.move();
    return image;
  }

  /** @throws SyscallError, e.g. where the file system is full */
  write(offset: number, bytes: Uint8Array): void {
    (this.#layout ?? this.#file).write(offset, bytes);
  }

  zero(offset: number, sizeBytes: number): void {
    (this.#layout ?? this.#file).zero(offset, sizeBytes);
  }

  /** All was written: whoever opens it from now on finds the disk. `sync` makes it durable. */
  complete(): void {
    const sizeBytes = this.#layout?.complete();
    if (sizeBytes !== undefined) truncateFile(this.#fd, sizeBytes);
  }

  syncLater(): void {
    this.#file.syncLater();
  }

  /** @throws SyscallError */
  sync(): Promise<void> {
    return this.#file.sync();
  }

  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}

/** Removes the file, if it is the very one. */
export function removeImage({ path, device, inode }: ImageIdentity): void {
  const found = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (found === undefined || String(found.dev) !== device || String(found.ino) !== inode) return;
  rmSync(path, { force: true });
}

function identityOf(fd: Fd, path: string): ImageIdentity {
  const { dev, ino } = fstatSync(fd.number, { bigint: true });
  return { path, device: String(dev), inode: String(ino) };
}

/** Undefined where the file system has no such files. */
function openUnnamed(path: string): Fd | undefined {
  try {
    return openTemporaryFile(dirname(path));
  } catch (error) {
    if (error instanceof SyscallError && ["EOPNOTSUPP", "EISDIR"].includes(error.errno)) return undefined;
    throw error;
  }
}

function openNamed(path: string): Fd {
  return orTaken(path, () => openFile(path, O.RDWR | O.CREAT | O.EXCL, 0o600));
}

function orTaken<T>(path: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== "EEXIST") throw error;
    throw new StateError(`${path} has come into being meanwhile: vhu never writes over a file`, {
      cause: error,
    });
  }
}
