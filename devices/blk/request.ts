import { Chain } from "../../src/vring/mod.ts";

/** What is to be done for a request; "answer": nothing more, its status stands. */
export const ACTION = { answer: 0, read: 1, write: 2, flush: 3, discard: 4, writeZeroes: 5 } as const;
export type Action = (typeof ACTION)[keyof typeof ACTION];

export const STATUS = { ok: 0, ioError: 1, unsupported: 2 } as const;

/** struct virtio_blk_req (virtio 1.3, 5.2.6): u32 type, u32 reserved, u64 sector; data; u8 status. */
export const HEADER_BYTES = 16;

/** One request of a driver, from the chain that brought it to its status. Reused from request to request. */
export class BlkRequest {
  action: Action = ACTION.answer;
  status: number = STATUS.ok;
  /** Byte offset in the image. */
  offset = 0;
  sizeBytes = 0;
  /** Moved so far. */
  doneBytes = 0;
  /** WRITE_ZEROES may give the space back. */
  mayUnmap = false;
  /** Of the chain's writable bytes, without a gap from the first one on; not the status. */
  writtenBytes = 0;

  constructor(public chain: Chain = new Chain()) {}

  /** Puts the status behind the data. Returns what the used entry says was written. */
  finish(statusByte: Uint8Array): number {
    const { chain } = this;
    if (chain.writableBytes === 0) return 0;
    const dataBytes = chain.writableBytes - 1;
    statusByte[0] = this.status;
    chain.copyToWritable(dataBytes, statusByte);
    return this.writtenBytes === dataBytes ? chain.writableBytes : this.writtenBytes;
  }
}
