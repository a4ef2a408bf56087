import type { Logger } from "../../src/logger.ts";
import { errnoName, IoVector, NativeBuffer, readAt, syncData, writeAt } from "../../src/sys/mod.ts";
import type { Chain } from "../../src/vring/mod.ts";
import { SECTOR_BYTES } from "./config.ts";
import type { DiskImage } from "./disk-image.ts";

/** struct virtio_blk_req (virtio 1.3, 5.2.6): u32 type, u32 reserved, u64 sector; data; u8 status. */
const HEADER_BYTES = 16;
const TYPE = { in: 0, out: 1, flush: 4, getId: 8 } as const;
const STATUS = { ok: 0, ioError: 1, unsupported: 2 } as const;

/** GET_ID's answer: a string, padded with NUL. */
export const ID_BYTES = 20;

/** Pieces that one preadv or pwritev takes (IOV_MAX). */
const MAX_PIECES = 1024;

/** Log lines about failed requests before only each power of two is logged: a guest can make any number of them. */
const LOGGED_FAILURES = 16;

export interface RequestSettings {
  /** Shown by GET_ID; at most 20 bytes. */
  readonly id: string;
  /** Every write is durable before it is acknowledged: no FLUSH was negotiated, or the driver turned the cache off. */
  readonly writeThrough: boolean;
}

/**
 * Serves the requests of a block device, one after the other and in line. Data goes between the image and guest memory
 * by the pieces of the chain, without a copy. Whatever the guest asks for ends in a status; nothing is thrown.
 */
export class RequestProcessor {
  readonly #header = new NativeBuffer(HEADER_BYTES);
  readonly #vector = new IoVector(MAX_PIECES);
  readonly #status = new Uint8Array(1);
  #failures = 0;
  /** Written since the last flush. */
  isDirty = false;

  constructor(
    readonly image: DiskImage,
    readonly settings: () => RequestSettings,
    readonly logger: Logger,
  ) {}

  /** Serves one chain. Returns how many bytes of it were written, without a gap from the first writable one on. */
  serve(chain: Chain): number {
    if (chain.writableBytes === 0) {
      this.#warn("a request has no room for its status");
      return 0;
    }
    const dataBytes = chain.writableBytes - 1;
    let done = 0;
    this.#status[0] = STATUS.ok;
    if (chain.copyFromReadable(0, this.#header.bytes) < HEADER_BYTES) {
      this.#fail(`a request has ${chain.readableBytes} readable bytes, its header alone has ${HEADER_BYTES}`);
    } else {
      done = this.#execute(chain, this.#header.view.getUint32(0, true), dataBytes);
    }
    chain.copyToWritable(dataBytes, this.#status);
    return done === dataBytes ? chain.writableBytes : done;
  }

  /** Makes everything durable that was written. Returns 0 or the negative errno. */
  flush(): number {
    const result = syncData(this.image.fd);
    if (result === 0) this.isDirty = false;
    return result;
  }

  /** Returns the bytes of data that were written into the chain. */
  #execute(chain: Chain, type: number, dataBytes: number): number {
    switch (type) {
      case TYPE.in:
        return this.#read(chain, dataBytes);
      case TYPE.out:
        this.#write(chain);
        return 0;
      case TYPE.flush:
        this.#flush();
        return 0;
      case TYPE.getId:
        return this.#getId(chain, dataBytes);
      default:
        this.#fail(`request type ${type} is not supported`, {}, STATUS.unsupported);
        return 0;
    }
  }

  #read(chain: Chain, sizeBytes: number): number {
    const offset = this.#checkedOffset("read", sizeBytes);
    if (offset < 0) return 0;
    const done = this.#transfer(readAt, chain, chain.readableCount, chain.pieceCount, 0, sizeBytes, offset);
    if (done < 0) {
      // Some of it may have arrived before the error, which a migration's dirty log has to know.
      chain.markWritten(sizeBytes);
      this.#fail(`read failed: ${errnoName(-done)}`, { offset, sizeBytes });
      return 0;
    }
    if (done < sizeBytes) this.#fail("the image was cut short", { offset, sizeBytes, done });
    return done;
  }

  #write(chain: Chain): void {
    const sizeBytes = chain.readableBytes - HEADER_BYTES;
    const offset = this.#checkedOffset("write", sizeBytes);
    if (offset < 0) return;
    if (this.image.readOnly) {
      this.#fail("write to a read-only image", { offset, sizeBytes });
      return;
    }
    this.isDirty = true;
    const done = this.#transfer(writeAt, chain, 0, chain.readableCount, HEADER_BYTES, sizeBytes, offset);
    if (done < sizeBytes) {
      const why = done < 0 ? errnoName(-done) : `only ${done} bytes were taken`;
      this.#fail(`write failed: ${why}`, { offset, sizeBytes });
    } else if (this.settings().writeThrough) {
      this.#flush();
    }
  }

  #flush(): void {
    const result = this.flush();
    if (result < 0) this.#fail(`flush failed: ${errnoName(-result)}`);
  }

  #getId(chain: Chain, dataBytes: number): number {
    const id = new Uint8Array(Math.min(ID_BYTES, dataBytes));
    id.set(new TextEncoder().encode(this.settings().id).subarray(0, id.length));
    return chain.copyToWritable(0, id);
  }

  /** The byte offset of the request in the header, or -1 when it was answered because it is not inside the disk. */
  #checkedOffset(what: string, sizeBytes: number): number {
    const { view } = this.#header;
    const sector = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    // Above 2^53 the product is not exact any more, and far beyond any capacity.
    const offset = sector * SECTOR_BYTES;
    if (sizeBytes % SECTOR_BYTES !== 0) {
      this.#fail(`${what} of ${sizeBytes} bytes, not a multiple of ${SECTOR_BYTES}`, { offset, sizeBytes });
      return -1;
    }
    if (offset + sizeBytes > this.image.capacityBytes) {
      const { capacityBytes } = this.image;
      this.#fail(`${what} beyond the end of the disk`, { offset, sizeBytes, capacityBytes });
      return -1;
    }
    return offset;
  }

  /**
   * Moves `sizeBytes` bytes between the image at `offset` and pieces `first` to `end` of the chain, less the first
   * `skipBytes` of them. Returns the bytes moved, fewer at the end of the file, or the negative errno.
   */
  #transfer(
    call: typeof readAt,
    chain: Chain,
    first: number,
    end: number,
    skipBytes: number,
    sizeBytes: number,
    offset: number,
  ): number {
    const vector = this.#vector;
    let skip = skipBytes;
    let left = sizeBytes;
    let done = 0;
    for (let piece = first; left > 0; ) {
      vector.clear();
      for (; piece < end && left > 0 && vector.count < MAX_PIECES; piece++) {
        const length = chain.lengths[piece]!;
        const count = Math.min(length - Math.min(skip, length), left);
        if (count > 0) vector.push(chain.addresses[piece]! + skip, count);
        skip -= Math.min(skip, length);
        left -= count;
      }
      const batchBytes = vector.totalBytes;
      const moved = call(this.image.fd, vector, offset + done);
      if (moved < 0) return moved;
      done += moved;
      if (moved < batchBytes) return done;
    }
    return done;
  }

  #fail(
    message: string,
    details: Readonly<Record<string, number>> = {},
    status: number = STATUS.ioError,
  ): void {
    this.#status[0] = status;
    this.#warn(message, details);
  }

  #warn(message: string, details: Readonly<Record<string, number>> = {}): void {
    const count = ++this.#failures;
    if (count > LOGGED_FAILURES && (count & (count - 1)) !== 0) return;
    this.logger.warn(`${this.image.path}: ${message}`, { ...details, failures: count });
  }
}
