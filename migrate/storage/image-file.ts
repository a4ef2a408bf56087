import { fdatasync, writeSync } from "node:fs";
import { promisify } from "node:util";
import { SyscallError } from "../../src/errors.ts";
import { type Fd, punchHole } from "../../src/sys/mod.ts";

/** What was written goes to the disk meanwhile, so that little of it is left for the end. */
const SYNC_BYTES = 16 << 20;
const ZEROS = new Uint8Array(1 << 20);

/** A new file that is written at random, and durable at the end. Borrows its fd. */
export class ImageFile {
  #sinceSync = 0;
  #syncing: Promise<void> | undefined;

  constructor(
    readonly fd: Fd,
    readonly path: string,
  ) {}

  /** @throws SyscallError, e.g. where the file system is full */
  write(offset: number, bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.fd.number, bytes, done, bytes.length - done, offset + done);
      }
    } catch (error) {
      throw this.#fault("pwrite", error);
    }
    this.#sinceSync += bytes.length;
    if (this.#sinceSync >= SYNC_BYTES) this.syncLater();
  }

  /** Begins to make durable what was written so far. */
  syncLater(): void {
    if (this.#syncing !== undefined) return;
    this.#sinceSync = 0;
    // What fails here fails again at the end.
    this.#syncing = syncDataOf(this.fd.number)
      .catch(() => {})
      .finally(() => {
        this.#syncing = undefined;
      });
  }

  /** @throws SyscallError */
  zero(offset: number, sizeBytes: number): void {
    if (punchHole(this.fd, offset, sizeBytes) === 0) return;
    for (let done = 0; done < sizeBytes; done += ZEROS.length) {
      this.write(offset + done, ZEROS.subarray(0, Math.min(ZEROS.length, sizeBytes - done)));
    }
  }

  /** @throws SyscallError when it cannot be made durable */
  async sync(): Promise<void> {
    try {
      await this.#syncing;
      await syncDataOf(this.fd.number);
    } catch (error) {
      throw this.#fault("fdatasync", error);
    }
  }

  #fault(call: string, error: unknown): SyscallError {
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    const why = code === "ENOSPC" ? `${this.path}: its file system is full` : this.path;
    return new SyscallError(call, code, why);
  }
}

const syncDataOf = promisify(fdatasync);
