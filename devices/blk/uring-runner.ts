import type { DeviceQueue, RingRunner } from "../../src/backend/mod.ts";
import { Errno, type Fd, IoUring, IoVector } from "../../src/sys/mod.ts";
import { isAligned, nextPieces } from "./data-pieces.ts";
import { DIRECT_ALIGNMENT, giveBack, type ImageFiles } from "./image-files.ts";
import { ACTION, BlkRequest } from "./request.ts";
import { settle } from "./request-outcome.ts";
import type { RequestProcessor } from "./request-processor.ts";
import { isUnsupported, PUNCH_MODE, ZERO_MODE } from "./zero-range.ts";

/** More than Linux gives one virtio-blk queue by default (128), and all of a ring of 256. */
const MAX_IN_FLIGHT = 256;
/** Requests that are taken before they are submitted. */
const MAX_BATCH = 64;
/** Requests that are served in line before their completions are shown. */
const MAX_IN_LINE = 16;
/** Pieces of one readv or writev: SEG_MAX and the header's. What has more goes in several. */
const MAX_PIECES = 128;
/** One wait for requests that do not end; what is waited for may have been missed. */
const END_SLICE_MS = 1000;
/** Places of the registered files. */
const FILE = { buffered: 0, direct: 1 } as const;

/** One request in flight. */
class Slot extends BlkRequest {
  /** Made with the first request of several pieces. */
  vector: IoVector | undefined;
  file: number = FILE.buffered;
  /** Its data is written, and an fdatasync under way: it is acknowledged when it is durable. */
  isSyncing = false;
}

/** Serves a ring by io_uring: many requests in flight, submitted and ended in batches. Nothing is allocated for a request. */
export class UringRunner implements RingRunner {
  readonly #ring: IoUring;
  readonly #slots: readonly Slot[];
  readonly #free: Int32Array;
  readonly #status = new Uint8Array(1);
  #freeCount: number;

  /** @throws SyscallError where there is no io_uring */
  constructor(
    readonly queue: DeviceQueue,
    readonly files: ImageFiles,
    readonly processor: RequestProcessor,
    /** Do in line what is faster in line. */
    readonly isMixed: boolean,
  ) {
    const count = Math.min(queue.size, MAX_IN_FLIGHT);
    this.#slots = Array.from({ length: count }, () => new Slot());
    this.#free = Int32Array.from({ length: count }, (_, i) => i);
    this.#freeCount = count;
    this.#ring = IoUring.create({ entries: count });
    const { buffered, direct } = files;
    this.#ring.registerFiles(direct === undefined ? [buffered] : [buffered, direct]);
  }

  get completions(): Fd {
    return this.#ring.fd;
  }

  get isFull(): boolean {
    return this.#freeCount === 0;
  }

  poll(): boolean {
    const answered = this.#take();
    return this.#turn(answered) || answered > 0;
  }

  drain(): boolean {
    this.#turn(0);
    return this.#freeCount === this.#slots.length;
  }

  /** The kernel may still work on guest memory where the ring was not drained, so its end is waited for, however long. */
  [Symbol.dispose](): void {
    const ring = this.#ring;
    while (ring.inFlight > 0) if (!ring.reap()) ring.submit(1, END_SLICE_MS);
    ring[Symbol.dispose]();
    giveBack(this.files);
  }

  /** Takes what came in. Returns how many requests were answered at once. */
  #take(): number {
    let answered = 0;
    for (let count = 0; count < MAX_BATCH && answered < MAX_IN_LINE && this.#freeCount > 0; count++) {
      const place = this.#free[this.#freeCount - 1]!;
      const slot = this.#slots[place]!;
      if (!this.queue.pop(slot.chain)) break;
      this.processor.reader.read(slot);
      if (slot.action === ACTION.answer || (this.isMixed && this.#isServedInLine(slot, count === 0))) {
        this.queue.complete(slot.chain, slot.finish(this.#status));
        answered++;
      } else {
        this.#freeCount--;
        this.#begin(place, slot);
      }
    }
    return answered;
  }

  /** Serves what needs no waiting in line. `isFirst`: nothing was taken before it in this turn. */
  #isServedInLine(slot: Slot, isFirst: boolean): boolean {
    if (slot.action === ACTION.write) {
      if (this.processor.reader.settings.writeThrough || this.#isDirect(slot)) return false;
      this.processor.execute(slot);
      return true;
    }
    const isAlone = isFirst && this.#freeCount === this.#slots.length;
    return isAlone && slot.action === ACTION.read && !this.#isDirect(slot) && this.processor.readCached(slot);
  }

  #isDirect(slot: Slot): boolean {
    return this.files.direct !== undefined && isAligned(slot, DIRECT_ALIGNMENT);
  }

  /** Submits, and ends what is done. Returns true when there was something. `answered` completions wait to be shown. */
  #turn(answered: number): boolean {
    const ring = this.#ring;
    let ended = answered;
    let found = ring.prepared > 0;
    for (;;) {
      if (ring.prepared > 0 || ring.hasDeferred) ring.submit();
      let reaped = 0;
      for (; ring.reap(); reaped++) if (this.#end(ring.token, ring.result)) ended++;
      if (reaped > 0) found = true;
      // What a completion led to, the rest of a short read or an fdatasync, goes out at once.
      if (reaped === 0 || ring.prepared === 0) break;
    }
    if (ended > 0) this.queue.publish();
    return found;
  }

  #begin(place: number, slot: Slot): void {
    const ring = this.#ring;
    const { offset, sizeBytes } = slot;
    slot.isSyncing = false;
    slot.file = FILE.buffered;
    switch (slot.action) {
      case ACTION.flush:
        ring.syncData(place, FILE.buffered);
        return;
      case ACTION.discard:
        ring.fallocate(place, FILE.buffered, PUNCH_MODE, offset, sizeBytes);
        return;
      case ACTION.writeZeroes:
        ring.fallocate(place, FILE.buffered, slot.mayUnmap ? PUNCH_MODE : ZERO_MODE, offset, sizeBytes);
        return;
      default:
        if (this.#isDirect(slot)) slot.file = FILE.direct;
        this.#transfer(place, slot);
    }
  }

  /** Prepares what is left of the data, or as many pieces as one call takes. */
  #transfer(place: number, slot: Slot): void {
    const { chain, file } = slot;
    const ring = this.#ring;
    const offset = slot.offset + slot.doneBytes;
    const isRead = slot.action === ACTION.read;
    const first = isRead ? chain.readableCount : 1;
    // Nearly all requests: a header of its own, and the data in one piece.
    if (
      slot.doneBytes === 0 &&
      chain.lengths[first] === slot.sizeBytes &&
      (isRead || this.#hasOwnHeader(slot))
    ) {
      const address = chain.addresses[first]!;
      if (isRead) ring.read(place, file, address, slot.sizeBytes, offset);
      else ring.write(place, file, address, slot.sizeBytes, offset);
      return;
    }
    slot.vector ??= new IoVector(MAX_PIECES);
    nextPieces(slot, slot.vector);
    const { address, count } = slot.vector;
    if (isRead) ring.readv(place, file, address, count, offset);
    else ring.writev(place, file, address, count, offset);
  }

  #hasOwnHeader({ chain, sizeBytes }: Slot): boolean {
    return chain.readableCount === 2 && chain.readableBytes - sizeBytes === chain.lengths[0];
  }

  /** Takes a completion. True when the request was answered, false when it goes on. */
  #end(place: number, result: number): boolean {
    const slot = this.#slots[place]!;
    if (this.#goesOn(place, slot, result)) return false;
    this.queue.complete(slot.chain, slot.finish(this.#status));
    this.#free[this.#freeCount++] = place;
    return true;
  }

  #goesOn(place: number, slot: Slot, result: number): boolean {
    const isData = slot.action === ACTION.read || slot.action === ACTION.write;
    if (isData && !slot.isSyncing && this.#dataGoesOn(place, slot, result)) return true;
    if (isUnsupported(result) && (slot.action === ACTION.discard || slot.action === ACTION.writeZeroes)) {
      // Rare and slow in any case: done in line, with its fdatasync.
      this.processor.execute(slot);
      return false;
    }
    if (result >= 0 && !slot.isSyncing && this.processor.mustBeDurable(slot)) {
      slot.isSyncing = true;
      this.#ring.syncData(place, FILE.buffered);
      return true;
    }
    settle(slot, Math.min(result, 0), this.processor.reader);
    return false;
  }

  #dataGoesOn(place: number, slot: Slot, result: number): boolean {
    if (result === -Errno.EINVAL && slot.file === FILE.direct) {
      // The file system asks for more alignment than we knew.
      slot.file = FILE.buffered;
    } else if (result > 0) {
      slot.doneBytes += result;
      if (slot.doneBytes >= slot.sizeBytes) return false;
      // What is left of a short direct read or write need not be aligned.
      slot.file = FILE.buffered;
    } else if (result !== -Errno.EAGAIN && result !== -Errno.EINTR) {
      return false;
    }
    this.#transfer(place, slot);
    return true;
  }
}
