import { closeSync, constants, fstatSync, openSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_SPOOL_BYTES } from "../../src/limits.ts";
import { FileCipher } from "./file-cipher.ts";
import { O_CLOEXEC, readFully, readSome, systemCall, writeAll } from "./file-io.ts";
import { HEADER_PREFIX_BYTES, headerSizeBytes } from "./header.ts";
import { openUnnamed } from "./output-file.ts";

const COPY_BYTES = 1024 * 1024;
const LEAST_BUFFER_BYTES = 64 * 1024;

export interface SpoolOptions {
  /** Where a snapshot from a pipe is kept while it is read; the system's temporary folder unless told. */
  readonly spoolDirectory?: string;
  /** 1 TiB unless told. */
  readonly maxBytes?: number;
}

/** An open file for a Worker. */
export interface SharedInput {
  readonly fd: number;
  readonly what: string;
  readonly key: Uint8Array | undefined;
  readonly fileId: string;
}

/** A file that is read at random. Owns its fd. */
export class FileInput implements Disposable {
  readonly fd: number;
  readonly what: string;
  /** Undefined for a file without a name. */
  readonly path: string | undefined;
  readonly sizeBytes: number;
  /** Set once the file's key is known. */
  cipher: FileCipher | undefined;
  #isOpen = true;
  #isOwned = true;
  #buffer = new Uint8Array(0);

  private constructor(fd: number, what: string, path?: string) {
    this.fd = fd;
    this.what = what;
    this.path = path;
    this.sizeBytes = systemCall("fstat", what, () => fstatSync(fd).size);
  }

  /** @throws SyscallError, FormatError if it is not a regular file */
  static open(path: string): FileInput {
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK | O_CLOEXEC;
    const fd = systemCall("open", path, () => openSync(path, flags));
    const input = new FileInput(fd, path, path);
    if (systemCall("fstat", path, () => fstatSync(fd)).isFile()) return input;
    input[Symbol.dispose]();
    throw new FormatError(`${path} is not a regular file: a pipe is read through "-"`, "header", 0);
  }

  /** For another thread: the fd stays the owner's. */
  static borrow({ fd, what, key, fileId }: SharedInput): FileInput {
    const input = new FileInput(fd, what);
    input.#isOwned = false;
    if (key !== undefined) input.cipher = new FileCipher(key, fileId);
    return input;
  }

  /** What another thread needs to read it as well. */
  share(): SharedInput {
    return { fd: this.fd, what: this.what, key: this.cipher?.key, fileId: this.cipher?.fileId ?? "" };
  }

  /** Copies a pipe to an unnamed file; `fd` stays the caller's. @throws SyscallError, FormatError */
  static spool(fd: number, options: SpoolOptions = {}): FileInput {
    const spool = openSpool(options.spoolDirectory ?? tmpdir());
    try {
      copy(fd, spool, options.maxBytes ?? MAX_SNAPSHOT_SPOOL_BYTES);
      return new FileInput(spool, `fd ${fd}`);
    } catch (error) {
      closeSync(spool);
      throw error;
    }
  }

  /**
   * Bytes of the file, valid until the next call: all reads share one buffer, since fresh ones of 16 MiB cost more in
   * page faults than the reading.
   *
   * @throws FormatError if the file ends before, SyscallError
   */
  read(offset: number, sizeBytes: number, section: string): Uint8Array {
    if (offset + sizeBytes > this.sizeBytes) {
      throw new FormatError(`the file ends early, at ${this.sizeBytes} bytes`, section, offset);
    }
    if (this.#buffer.length < sizeBytes)
      this.#buffer = new Uint8Array(Math.max(sizeBytes, LEAST_BUFFER_BYTES));
    const bytes = this.#buffer.subarray(0, sizeBytes);
    readFully(this.fd, bytes, offset, this.what, section);
    return bytes;
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.#isOwned) closeSync(this.fd);
  }
}

function openSpool(directory: string): number {
  const unnamed = openUnnamed(directory, directory);
  if (unnamed !== undefined) return unnamed;
  const path = join(directory, `vhu-spool-${crypto.randomUUID()}`);
  const exclusive = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | O_CLOEXEC;
  const fd = systemCall("open", path, () => openSync(path, exclusive, 0o600));
  systemCall("unlink", path, () => unlinkSync(path));
  return fd;
}

/** What is no snapshot is refused after its first bytes, not after a terabyte. */
function copy(from: number, to: number, maxBytes: number): void {
  const buffer = new Uint8Array(COPY_BYTES);
  const prefix = new Uint8Array(HEADER_PREFIX_BYTES);
  let total = 0;
  for (;;) {
    const count = readSome(from, buffer, `fd ${from}`);
    if (total < HEADER_PREFIX_BYTES) {
      prefix.set(buffer.subarray(0, Math.min(count, HEADER_PREFIX_BYTES - total)), total);
      if (total + count >= HEADER_PREFIX_BYTES) headerSizeBytes(prefix);
    }
    if (count === 0) return;
    total += count;
    if (total > maxBytes) {
      throw new FormatError(`the snapshot is larger than the limit of ${maxBytes} bytes`, "spool", maxBytes);
    }
    writeAll(to, buffer.subarray(0, count), "the spool file");
  }
}
