import { BlkDevice, type BlkOptions, blkFeature, DiskImage } from "../../../devices/blk/mod.ts";
import { BlkInThread } from "../../support/blk-in-thread.ts";
import { DrivenMemory, DrivenQueue, type Piece } from "../../support/driven-queue.ts";
import { recordingLogger } from "../../support/recording-logger.ts";

/** "inline": as on the control thread; the others as in a ring Worker. */
export const WAYS = ["inline", "sync", "mixed", "uring"] as const;

export const [IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES] = [0, 1, 4, 8, 11, 13];
export const [OK, IOERR, UNSUPP] = [0, 1, 2];
/** What Linux acknowledges. */
const LINUX_FEATURES = blkFeature.FLUSH | blkFeature.CONFIG_WCE | blkFeature.SEG_MAX | blkFeature.BLK_SIZE;

export interface RigOptions extends BlkOptions {
  readonly way?: (typeof WAYS)[number];
  readonly readOnly?: boolean;
  readonly direct?: boolean;
  readonly packed?: boolean;
  /** Of the ring. */
  readonly size?: number;
  readonly features?: bigint;
}

export function pattern(sizeBytes: number, seed: number): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, i) => (i * 31 + (i >> 9) * 17 + seed) & 0xff);
}

export function header(type: number, sector: bigint | number = 0): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, type, true);
  view.setBigUint64(8, BigInt(sector), true);
  return new Uint8Array(view.buffer);
}

/** struct virtio_blk_discard_write_zeroes. */
export function segment(sector: number, sectors: number, flags = 0): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, BigInt(sector), true);
  view.setUint32(8, sectors, true);
  view.setUint32(12, flags, true);
  return new Uint8Array(view.buffer);
}

export const room = (sizeBytes: number): Piece => ({ room: sizeBytes });
export const out = (bytes: Uint8Array): Piece => ({ out: bytes });

/** A disk on the image at `path`, with one queue that a test drives. */
export function setUpDisk(path: string, options: RigOptions = {}) {
  const stack = new DisposableStack();
  const logger = recordingLogger();
  const { way = "inline", readOnly = false, direct = false, features = LINUX_FEATURES } = options;
  const image = DiskImage.open(path, { readOnly, direct });
  const own = { lock: false, ...options, logger };
  const device = stack.use(
    way === "inline" ? new BlkDevice(image, own) : new BlkInThread(image, { ...own, io: way }),
  );
  device.ackFeatures(features);
  const driven = stack.use(new DrivenMemory());
  const queue = openQueue(stack, () => new DrivenQueue(driven, device, 0, options));
  /** The request's data and its status. */
  const request = (pieces: readonly Piece[]) => {
    const { written, writtenBytes } = queue.run(pieces);
    return { data: written.subarray(0, -1), status: written.at(-1), writtenBytes };
  };
  return { stack, logger, device, driven, queue, request, [Symbol.dispose]: () => stack.dispose() };
}

/** A device that refuses to start its queue is no leak. */
function openQueue(stack: DisposableStack, open: () => DrivenQueue): DrivenQueue {
  try {
    return stack.use(open());
  } catch (error) {
    stack.dispose();
    throw error;
  }
}
