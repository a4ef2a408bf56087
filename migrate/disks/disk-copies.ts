import { mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { O, openFile, sizeOf, syncFile } from "../../src/sys/mod.ts";
import { type CopyOptions, copyImage } from "./copy-image.ts";
import { digestImage } from "./digest-image.ts";
import { SEALED_IMAGE_KEY_BYTES, sealImage } from "./sealed-image.ts";

const ID_DIGITS = 8;

/** A copy of a disk beside a snapshot. */
export interface DiskCopy {
  /** Relative to the snapshot's folder. */
  readonly file: string;
  readonly path: string;
  /** Base64: what it is sealed with, where it is. Nothing else is. */
  readonly key?: string | undefined;
}

export interface DiskCopiesOptions {
  /** The snapshot is encrypted, and its copies are. */
  readonly isSealed?: boolean | undefined;
}

/**
 * The copies of disks that belong to one snapshot: files in a folder of its name beside it, "web.vhu.disks". Until `keep`
 * they go away when this is disposed of. Each save's have names of their own, so that an earlier snapshot of the same name
 * is whole until it is replaced.
 */
export class DiskCopies implements Disposable {
  readonly folder: string;
  readonly #id = crypto.randomUUID().replaceAll("-", "").slice(0, ID_DIGITS);
  readonly #made: string[] = [];
  #isKept = false;

  /** @param snapshot the path that the snapshot will have */
  constructor(
    readonly snapshot: string,
    readonly options: DiskCopiesOptions = {},
  ) {
    this.folder = `${snapshot}.disks`;
  }

  /**
   * Copies a file or block device as it is, sharing data where the file system can; or seals it on the way. On disk when it
   * returns.
   */
  async add(name: string, path: string, sizeBytes: number, options: CopyOptions = {}): Promise<DiskCopy> {
    mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    const file = `${this.#id}-${name.replace(/[^\w.-]+/g, "_").slice(-100)}`;
    const target = join(this.folder, file);
    using source = openFile(path, O.RDONLY);
    using copy = openFile(target, O.RDWR | O.CREAT | O.EXCL, 0o600);
    this.#made.push(target);
    const key = this.options.isSealed
      ? crypto.getRandomValues(new Uint8Array(SEALED_IMAGE_KEY_BYTES))
      : undefined;
    if (key === undefined) await copyImage(source, sizeBytes, copy, options);
    else await sealImage(source, sizeBytes, copy, key, options);
    syncFile(copy);
    return {
      file: join(basename(this.folder), file),
      path: target,
      ...(key === undefined ? {} : { key: Buffer.from(key).toString("base64") }),
    };
  }

  /** Of a copy that is not sealed. The machine may go on meanwhile. */
  async digest({ path }: DiskCopy, options: CopyOptions = {}): Promise<string> {
    using copy = openFile(path, O.RDONLY);
    return await digestImage(copy, sizeOf(copy), options);
  }

  /** The snapshot is whole. What another one of its name had is of no use any more. */
  keep(): void {
    this.#isKept = true;
    const own = new Set(this.#made.map((path) => basename(path)));
    for (const name of this.#names()) {
      if (/^[0-9a-f]{8}-/.test(name) && !own.has(name)) rmSync(join(this.folder, name));
    }
    this.#removeEmptyFolder();
  }

  [Symbol.dispose](): void {
    if (this.#isKept) return;
    for (const path of this.#made) rmSync(path, { force: true });
    this.#removeEmptyFolder();
  }

  #names(): string[] {
    try {
      return readdirSync(this.folder);
    } catch {
      // No copy was ever made.
      return [];
    }
  }

  #removeEmptyFolder(): void {
    try {
      rmdirSync(this.folder);
    } catch {
      // Not there, or something is in it.
    }
  }
}

/** Where a copy is, for whoever has the snapshot at `snapshot`; undefined where the name leads elsewhere. */
export function copyPath(snapshot: string, file: string): string | undefined {
  const [folder, name, ...others] = file.split("/");
  if (folder === undefined || name === undefined || others.length > 0) return undefined;
  if ([folder, name].some((part) => part === "" || part === "." || part === "..")) return undefined;
  return join(dirname(snapshot), folder, name);
}
