import { statSync } from "node:fs";
import { UsageError } from "../../src/errors.ts";
import { type Fd, O, openFile, sizeOf } from "../../src/sys/mod.ts";
import { SECTOR_BYTES } from "./config.ts";

/** A raw disk: a regular file or a block device. Owns its fd. */
export class DiskImage implements Disposable {
  private constructor(
    readonly fd: Fd,
    readonly path: string,
    readonly capacityBytes: number,
    readonly readOnly: boolean,
  ) {}

  /**
   * @throws SyscallError when it cannot be opened, UsageError when it is no disk or not a multiple of 512 bytes long
   */
  static open(path: string, options: { readonly readOnly?: boolean } = {}): DiskImage {
    const readOnly = options.readOnly ?? false;
    // Asked first, because opening a FIFO would wait for its other end.
    const kind = statSync(path, { throwIfNoEntry: false });
    if (kind !== undefined && !kind.isFile() && !kind.isBlockDevice()) {
      throw new UsageError(`${path} is neither a file nor a block device`);
    }
    const fd = openFile(path, readOnly ? O.RDONLY : O.RDWR);
    try {
      const sizeBytes = sizeOf(fd);
      if (sizeBytes === 0)
        throw new UsageError(`${path} is empty; give it a size first (truncate -s 1G ${path})`);
      if (sizeBytes % SECTOR_BYTES !== 0) {
        const next = Math.ceil(sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
        throw new UsageError(
          `${path} has ${sizeBytes} bytes, a disk has a multiple of ${SECTOR_BYTES} (truncate -s ${next} ${path})`,
        );
      }
      return new DiskImage(fd, path, sizeBytes, readOnly);
    } catch (error) {
      fd[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}
