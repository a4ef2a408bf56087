import type { DriverPiece } from "../../../src/vring/mod.ts";
import type { Driver } from "./driver.ts";

/** virtio 1.3, 5.2.6: request types and status bytes. */
const REQUEST = { read: 0, write: 1, flush: 4, getId: 8 } as const;
const STATUS_OK = 0;
const HEADER_BYTES = 16;
const ID_BYTES = 20;
const SECTOR_BYTES = 512;

export interface DiskWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** A disk's driver: one request at a time per call, or a batch of reads and writes that are in flight together. */
export class BlkDriver {
  readonly #control: number;
  readonly #data: number;

  /** @param maxBytes the largest request; data go through one buffer of this size per queue slot in use */
  constructor(
    readonly driver: Driver,
    readonly maxBytes: number,
    /** How many requests `writeBatch` has in flight. */
    readonly depth = 1,
  ) {
    // Header and status of a slot share a cache line's worth of memory; nothing else is there.
    this.#control = driver.memory.allocate(depth * 64);
    this.#data = driver.memory.allocate(depth * maxBytes, 4096);
  }

  /** `pieceBytes` cuts the data into that many bytes a descriptor. */
  write(queue: number, offset: number, bytes: Uint8Array, pieceBytes = bytes.length): void {
    this.driver.memory.write(this.#data, bytes);
    this.#run(queue, REQUEST.write, offset, bytes.length, pieceBytes);
  }

  read(queue: number, offset: number, sizeBytes: number, pieceBytes = sizeBytes): Uint8Array {
    this.driver.memory.write(this.#data, new Uint8Array(sizeBytes).fill(0xee));
    this.#run(queue, REQUEST.read, offset, sizeBytes, pieceBytes);
    return this.driver.memory.read(this.#data, sizeBytes);
  }

  flush(queue: number): void {
    this.#run(queue, REQUEST.flush, 0, 0, 1);
  }

  id(queue: number): string {
    this.#run(queue, REQUEST.getId, 0, ID_BYTES, ID_BYTES);
    return Buffer.from(this.driver.memory.read(this.#data, ID_BYTES))
      .toString("latin1")
      .replace(/\0.*$/s, "");
  }

  /** Writes all, `depth` at a time, without waiting in between. Offsets must not overlap. */
  writeBatch(queue: number, writes: readonly DiskWrite[]): void {
    this.beginWrites(queue, writes)();
  }

  /** As `writeBatch`, but leaves the last ones in flight, at most `depth`; what it returns waits for them. */
  beginWrites(queue: number, writes: readonly DiskWrite[]): () => void {
    const free = Array.from({ length: this.depth }, (_, slot) => slot);
    const inFlight = new Map<number, number>();
    const waitOne = () => {
      const { token } = this.driver.wait(queue);
      const slot = inFlight.get(token);
      if (slot === undefined) throw new Error(`completion ${token} belongs to no request`);
      inFlight.delete(token);
      this.#checkStatus(slot, REQUEST.write);
      free.push(slot);
    };
    for (const { offset, bytes } of writes) {
      while (free.length === 0) waitOne();
      const slot = free.pop()!;
      inFlight.set(this.submitWrite(queue, slot, offset, bytes), slot);
      this.driver.notify(queue);
    }
    return () => {
      while (inFlight.size > 0) waitOne();
    };
  }

  /** Offers a write without a kick, from the buffer of a slot below `depth`. Returns its token. */
  submitWrite(queue: number, slot: number, offset: number, bytes: Uint8Array): number {
    this.driver.memory.write(this.#dataOf(slot), bytes);
    const pieces = this.#pieces(slot, REQUEST.write, offset, bytes.length, bytes.length);
    const token = this.driver.submit(queue, pieces);
    if (token === undefined) throw new Error("the queue is smaller than the depth needs");
    return token;
  }

  #run(queue: number, type: number, offset: number, sizeBytes: number, pieceBytes: number): void {
    this.driver.run(queue, this.#pieces(0, type, offset, sizeBytes, pieceBytes));
    this.#checkStatus(0, type);
  }

  #pieces(slot: number, type: number, offset: number, sizeBytes: number, pieceBytes: number): DriverPiece[] {
    const header = new Uint8Array(new ArrayBuffer(HEADER_BYTES + 1)).fill(0xff, HEADER_BYTES);
    const view = new DataView(header.buffer);
    view.setUint32(0, type, true);
    view.setBigUint64(8, BigInt(offset / SECTOR_BYTES), true);
    const control = this.#control + slot * 64;
    this.driver.memory.write(control, header);
    const pieces: DriverPiece[] = [{ guestAddress: control, sizeBytes: HEADER_BYTES, writable: false }];
    for (let at = 0; at < sizeBytes; at += pieceBytes) {
      pieces.push({
        guestAddress: this.#dataOf(slot) + at,
        sizeBytes: Math.min(pieceBytes, sizeBytes - at),
        writable: type !== REQUEST.write,
      });
    }
    pieces.push({ guestAddress: control + HEADER_BYTES, sizeBytes: 1, writable: true });
    return pieces;
  }

  #dataOf(slot: number): number {
    return this.#data + slot * this.maxBytes;
  }

  #checkStatus(slot: number, type: number): void {
    const [status] = this.driver.memory.read(this.#control + slot * 64 + HEADER_BYTES, 1);
    if (status !== STATUS_OK) throw new Error(`the disk answered request type ${type} with status ${status}`);
  }
}
