import { NativeBuffer } from "../../src/sys/mod.ts";
import type { ChangeMap } from "./change-map.ts";
import { MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS, SECTOR_BYTES } from "./config.ts";
import type { FailureLog } from "./failure-log.ts";
import { ACTION, type BlkRequest, HEADER_BYTES, STATUS } from "./request.ts";
import { ID_BYTES, type SharedSettings } from "./shared-settings.ts";

const TYPE = { in: 0, out: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const;

/** struct virtio_blk_discard_write_zeroes: u64 sector, u32 num_sectors, u32 flags. */
const SEGMENT_BYTES = 16;
const FLAG_UNMAP = 1;

/** Reads what a driver asks for and checks it. Whatever is wrong ends in the request's status; nothing is thrown. */
export class RequestReader {
  readonly #header = new NativeBuffer(HEADER_BYTES);
  readonly #segment = new NativeBuffer(SEGMENT_BYTES);

  constructor(
    readonly readOnly: boolean,
    readonly settings: SharedSettings,
    readonly log: FailureLog,
    readonly changes: ChangeMap,
  ) {}

  /** Fills `request` from its chain. */
  read(request: BlkRequest): void {
    const { chain } = request;
    request.action = ACTION.answer;
    request.status = STATUS.ok;
    request.doneBytes = 0;
    request.writtenBytes = 0;
    if (chain.writableBytes === 0) {
      this.log.warn("a request has no room for its status");
    } else if (chain.copyFromReadable(0, this.#header.bytes) < HEADER_BYTES) {
      const has = `${chain.readableBytes} readable bytes`;
      this.#fail(request, `a request has ${has}, its header alone has ${HEADER_BYTES}`);
    } else {
      this.#dispatch(request, this.#header.view.getUint32(0, true));
    }
  }

  #dispatch(request: BlkRequest, type: number): void {
    const { chain } = request;
    switch (type) {
      case TYPE.in:
        this.#place(request, "read", this.#header, 8, chain.writableBytes - 1);
        if (request.status === STATUS.ok && request.sizeBytes > 0) request.action = ACTION.read;
        return;
      case TYPE.out:
        this.#place(request, "write", this.#header, 8, chain.readableBytes - HEADER_BYTES);
        this.#startWrite(request, "write", ACTION.write);
        return;
      case TYPE.flush:
        request.action = ACTION.flush;
        return;
      case TYPE.getId:
        this.#getId(request);
        return;
      case TYPE.discard:
        this.#segmentOf(request, "discard", MAX_DISCARD_SECTORS);
        this.#startWrite(request, "discard", ACTION.discard);
        return;
      case TYPE.writeZeroes:
        this.#segmentOf(request, "write-zeroes", MAX_WRITE_ZEROES_SECTORS);
        this.#startWrite(request, "write-zeroes", ACTION.writeZeroes);
        return;
      default:
        this.#fail(request, `request type ${type} is not supported`, {}, STATUS.unsupported);
    }
  }

  #startWrite(request: BlkRequest, what: string, action: BlkRequest["action"]): void {
    if (request.status !== STATUS.ok) return;
    if (this.readOnly) {
      const { offset, sizeBytes } = request;
      this.#fail(request, `${what} to a read-only image`, { offset, sizeBytes });
      return;
    }
    if (request.sizeBytes === 0) return;
    this.settings.isDirty = true;
    request.action = action;
  }

  /** The one segment of a discard or write-zeroes. Flags: virtio 1.3, 5.2.6.2. */
  #segmentOf(request: BlkRequest, what: string, maxSectors: number): void {
    const { chain } = request;
    const dataBytes = chain.readableBytes - HEADER_BYTES;
    if (dataBytes !== SEGMENT_BYTES) {
      this.#fail(request, `${what} with ${dataBytes} bytes of segments, one has ${SEGMENT_BYTES}`);
      return;
    }
    chain.copyFromReadable(HEADER_BYTES, this.#segment.bytes);
    const { view } = this.#segment;
    const sectors = view.getUint32(8, true);
    const flags = view.getUint32(12, true);
    request.mayUnmap = flags === FLAG_UNMAP;
    if (flags > FLAG_UNMAP || (request.mayUnmap && what === "discard")) {
      this.#fail(request, `${what} with flags ${flags}`, {}, STATUS.unsupported);
    } else if (sectors > maxSectors) {
      this.#fail(request, `${what} of ${sectors} sectors, at most ${maxSectors} are allowed`);
    } else {
      this.#place(request, what, this.#segment, 0, sectors * SECTOR_BYTES);
    }
  }

  #getId(request: BlkRequest): void {
    const id = new Uint8Array(Math.min(ID_BYTES, request.chain.writableBytes - 1));
    this.settings.readId(id);
    request.writtenBytes = request.chain.copyToWritable(0, id);
  }

  /** Where the request is, from the sector at `at`; fails it when that is not inside the disk. */
  #place(request: BlkRequest, what: string, from: NativeBuffer, at: number, sizeBytes: number): void {
    const sector = from.view.getUint32(at, true) + from.view.getUint32(at + 4, true) * 2 ** 32;
    // Above 2^53 the product is not exact any more, and far beyond any capacity.
    const offset = sector * SECTOR_BYTES;
    const { capacityBytes } = this.settings;
    request.offset = offset;
    request.sizeBytes = sizeBytes;
    if (sizeBytes % SECTOR_BYTES !== 0) {
      const multiple = `not a multiple of ${SECTOR_BYTES}`;
      this.#fail(request, `${what} of ${sizeBytes} bytes, ${multiple}`, { offset, sizeBytes });
    } else if (offset + sizeBytes > capacityBytes) {
      this.#fail(request, `${what} beyond the end of the disk`, { offset, sizeBytes, capacityBytes });
    }
  }

  #fail(
    request: BlkRequest,
    message: string,
    details: Readonly<Record<string, number>> = {},
    status: number = STATUS.ioError,
  ): void {
    request.status = status;
    this.log.warn(message, details);
  }
}
