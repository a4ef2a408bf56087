import {
  allocateRange,
  Errno,
  IoVector,
  readAt,
  readCachedAt,
  syncData,
  writeAt,
} from "../../src/sys/mod.ts";
import type { Chain } from "../../src/vring/mod.ts";
import { isAligned, nextPieces } from "./data-pieces.ts";
import { DIRECT_ALIGNMENT, type ImageFiles } from "./image-files.ts";
import { ACTION, BlkRequest } from "./request.ts";
import { settle } from "./request-outcome.ts";
import type { RequestReader } from "./request-reader.ts";
import { isUnsupported, PUNCH_MODE, ZERO_MODE, zeroByOtherMeans } from "./zero-range.ts";

/** Pieces that one preadv or pwritev takes (IOV_MAX). */
const MAX_PIECES = 1024;

/**
 * Serves the requests of a block device, one after the other and in line. Data goes between the image and guest memory
 * by the pieces of the chain, without a copy. Whatever the guest asks for ends in a status; nothing is thrown.
 */
export class RequestProcessor {
  readonly #vector = new IoVector(MAX_PIECES);
  readonly #request = new BlkRequest();
  readonly #status = new Uint8Array(1);

  constructor(
    readonly files: ImageFiles,
    readonly reader: RequestReader,
  ) {}

  /** Serves one chain. Returns how many bytes of it were written, without a gap from the first writable one on. */
  serve(chain: Chain): number {
    const request = this.#request;
    request.chain = chain;
    this.reader.read(request);
    if (request.action !== ACTION.answer) this.execute(request);
    return request.finish(this.#status);
  }

  /** Does what was asked, and settles the request. */
  execute(request: BlkRequest): void {
    let error = this.#act(request);
    if (error === 0 && this.mustBeDurable(request)) error = syncData(this.files.buffered);
    settle(request, error, this.reader);
  }

  /** Serves a read whose data is all in the page cache. False, and nothing done, where it is not. */
  readCached(request: BlkRequest): boolean {
    const vector = this.#vector;
    nextPieces(request, vector);
    if (vector.totalBytes < request.sizeBytes) return false;
    if (readCachedAt(this.files.buffered, vector, request.offset) !== request.sizeBytes) return false;
    request.doneBytes = request.sizeBytes;
    settle(request, 0, this.reader);
    return true;
  }

  mustBeDurable({ action, doneBytes, sizeBytes }: BlkRequest): boolean {
    if (action === ACTION.read || action === ACTION.flush || !this.reader.settings.writeThrough) return false;
    return action !== ACTION.write || doneBytes === sizeBytes;
  }

  /** Returns 0 or the negative errno. */
  #act(request: BlkRequest): number {
    const { buffered } = this.files;
    const { offset, sizeBytes, mayUnmap } = request;
    switch (request.action) {
      case ACTION.read:
      case ACTION.write:
        return this.#transfer(request);
      case ACTION.flush:
        return syncData(buffered);
      case ACTION.discard: {
        const result = allocateRange(buffered, PUNCH_MODE, offset, sizeBytes);
        // A hint: what the file system cannot give back stays.
        return isUnsupported(result) ? 0 : result;
      }
      default: {
        const result = allocateRange(buffered, mayUnmap ? PUNCH_MODE : ZERO_MODE, offset, sizeBytes);
        return isUnsupported(result) ? zeroByOtherMeans(buffered, offset, sizeBytes, mayUnmap) : result;
      }
    }
  }

  /** Moves what is left of the data; `doneBytes` says how much came through. Returns 0 or the negative errno. */
  #transfer(request: BlkRequest): number {
    const { direct, buffered } = this.files;
    if (direct !== undefined && isAligned(request, DIRECT_ALIGNMENT)) {
      const result = this.#transferBy(direct, request);
      if (result !== -Errno.EINVAL) return result;
    }
    return this.#transferBy(buffered, request);
  }

  #transferBy(file: ImageFiles["buffered"], request: BlkRequest): number {
    const vector = this.#vector;
    const call = request.action === ACTION.read ? readAt : writeAt;
    while (request.doneBytes < request.sizeBytes) {
      nextPieces(request, vector);
      const batchBytes = vector.totalBytes;
      const moved = call(file, vector, request.offset + request.doneBytes);
      if (moved < 0) return moved;
      request.doneBytes += moved;
      if (moved < batchBytes) return 0;
    }
    return 0;
  }
}
