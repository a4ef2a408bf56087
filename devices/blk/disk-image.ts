import { statfsSync, statSync } from "node:fs";
import { UsageError } from "../../src/errors.ts";
import { check, type Fd, libc, NativeBuffer, O, openFile, sizeOf } from "../../src/sys/mod.ts";
import { SECTOR_BYTES } from "./config.ts";
import type { ImageFiles } from "./image-files.ts";

/** ioctls of block devices (include/uapi/linux/fs.h); both write 4 bytes. */
const BLKSSZGET = 0x1268;
const BLKPBSZGET = 0x127b;
/** Of statfs: file systems that live in memory. */
const TMPFS_MAGIC = 0x01021994;
/** What a file's disk most likely has: nothing less is written at once, and Linux's page is as large. */
const FILE_PHYSICAL_BYTES = 4096;

export interface DiskImageOptions {
  readonly readOnly?: boolean;
  /** Past the page cache (O_DIRECT) where a request's alignment allows it. */
  readonly direct?: boolean;
}

/** A raw disk: a regular file or a block device. Owns its fds. */
export class DiskImage implements ImageFiles, Disposable {
  private constructor(
    readonly buffered: Fd,
    readonly direct: Fd | undefined,
    readonly path: string,
    public capacityBytes: number,
    readonly readOnly: boolean,
    readonly blockBytes: number,
    readonly physicalBlockBytes: number,
  ) {}

  /**
   * @throws SyscallError when it cannot be opened (EINVAL: its file system has no O_DIRECT), UsageError when it is no disk
   * or not a multiple of its block size long
   */
  static open(path: string, options: DiskImageOptions = {}): DiskImage {
    const { readOnly = false, direct = false } = options;
    // Asked first, because opening a FIFO would wait for its other end.
    const kind = statSync(path, { throwIfNoEntry: false });
    if (kind !== undefined && !kind.isFile() && !kind.isBlockDevice()) {
      throw new UsageError(`${path} is neither a file nor a block device`);
    }
    const flags = readOnly ? O.RDONLY : O.RDWR;
    using opened = new DisposableStack();
    const buffered = opened.use(openFile(path, flags));
    const past = direct ? opened.use(openFile(path, flags | O.DIRECT)) : undefined;
    const isDevice = kind?.isBlockDevice() === true;
    const blockBytes = isDevice ? ask(buffered, BLKSSZGET) : SECTOR_BYTES;
    const physical = isDevice ? Math.max(ask(buffered, BLKPBSZGET), blockBytes) : FILE_PHYSICAL_BYTES;
    const sizeBytes = checkSize(path, sizeOf(buffered), blockBytes);
    opened.move();
    return new DiskImage(buffered, past, path, sizeBytes, readOnly, blockBytes, physical);
  }

  /** The fd that others are given, and that locks are taken on. */
  get fd(): Fd {
    return this.buffered;
  }

  /** True where reads never wait for a disk, so that io_uring only adds the way to the kernel's threads and back. */
  get isInMemory(): boolean {
    return statfsSync(`/proc/self/fd/${this.buffered.number}`).type === TMPFS_MAGIC;
  }

  /** Looks at the image's size again. Returns true when it has changed. @throws UsageError when it is no disk's */
  refreshCapacity(): boolean {
    const before = this.capacityBytes;
    this.capacityBytes = checkSize(this.path, sizeOf(this.buffered), this.blockBytes);
    return this.capacityBytes !== before;
  }

  [Symbol.dispose](): void {
    this.buffered[Symbol.dispose]();
    this.direct?.[Symbol.dispose]();
  }
}

function checkSize(path: string, sizeBytes: number, blockBytes: number): number {
  if (sizeBytes === 0)
    throw new UsageError(`${path} is empty; give it a size first (truncate -s 1G ${path})`);
  if (sizeBytes % blockBytes === 0) return sizeBytes;
  const next = Math.ceil(sizeBytes / blockBytes) * blockBytes;
  throw new UsageError(
    `${path} has ${sizeBytes} bytes, a disk has a multiple of ${blockBytes} (truncate -s ${next} ${path})`,
  );
}

/** What a block device says of itself. */
function ask(fd: Fd, request: number): number {
  const answer = new NativeBuffer(8);
  check(libc.ioctl(fd.number, request, answer.address), "ioctl(BLKSSZGET)", fd.label);
  return answer.view.getUint32(0, true);
}
