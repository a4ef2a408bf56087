/** The virtio block device's config space and feature bits (virtio 1.3, 5.2.3 and 5.2.4). */

/** Sectors count 512 bytes whatever `blk_size` says. */
export const SECTOR_BYTES = 512;

/** struct virtio_blk_config up to and including the zoned characteristics; QEMU reads the first 57 or 60 bytes. */
const BLK_CONFIG_BYTES = 96;

const OFFSET = {
  capacity: 0,
  sizeMax: 8,
  segMax: 12,
  blkSize: 20,
  physicalBlockExp: 24,
  minIoSize: 26,
  optIoSize: 28,
  writeback: 32,
  numQueues: 34,
  maxDiscardSectors: 36,
  maxDiscardSeg: 40,
  discardSectorAlignment: 44,
  maxWriteZeroesSectors: 48,
  maxWriteZeroesSeg: 52,
  writeZeroesMayUnmap: 56,
} as const;

/** Where a driver with CONFIG_WCE toggles the cache: one byte, 0 write-through, 1 write-back. */
export const WRITEBACK_OFFSET = OFFSET.writeback;

export const blkFeature = {
  SIZE_MAX: 1n << 1n,
  SEG_MAX: 1n << 2n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  TOPOLOGY: 1n << 10n,
  CONFIG_WCE: 1n << 11n,
  MQ: 1n << 12n,
  DISCARD: 1n << 13n,
  WRITE_ZEROES: 1n << 14n,
} as const;

/** A ring of 128 descriptors, QEMU's default, less the request's header and status. Indirect tables allow no more. */
const SEG_MAX = 126;

/**
 * The largest piece of a request that a driver is asked to make. Larger ones are served, too. Linux makes no request larger than
 * 1280 KiB unless it is told to, and SeaBIOS multiplies this by SEG_MAX in 32 bits.
 */
const SIZE_MAX_BYTES = 4 << 20;

/** One request gives back 1 GiB at most: a file system that punches it in pieces holds the image's lock for so long. */
export const MAX_DISCARD_SECTORS = (1 << 30) / SECTOR_BYTES;
/** Where the file system has no ZERO_RANGE, zeros are written: 64 MiB take some 50 ms, and the ring waits meanwhile. */
export const MAX_WRITE_ZEROES_SECTORS = (64 << 20) / SECTOR_BYTES;

export interface BlkConfig {
  readonly capacityBytes: number;
  readonly writeback: boolean;
  readonly numQueues: number;
  /** Of the least that the host can read or write at once, a power of two from 512 on. */
  readonly blockBytes: number;
  /** What it does best, a power of two and no less than `blockBytes`. */
  readonly physicalBlockBytes: number;
}

/** The config space as the driver sees it. */
export function encodeBlkConfig(config: BlkConfig): Uint8Array {
  const { blockBytes, physicalBlockBytes } = config;
  const bytes = new Uint8Array(BLK_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(OFFSET.capacity, BigInt(config.capacityBytes / SECTOR_BYTES), true);
  view.setUint32(OFFSET.sizeMax, SIZE_MAX_BYTES, true);
  view.setUint32(OFFSET.segMax, SEG_MAX, true);
  view.setUint32(OFFSET.blkSize, blockBytes, true);
  view.setUint8(OFFSET.physicalBlockExp, Math.log2(physicalBlockBytes / blockBytes));
  view.setUint16(OFFSET.minIoSize, physicalBlockBytes / blockBytes, true);
  view.setUint8(OFFSET.writeback, config.writeback ? 1 : 0);
  view.setUint16(OFFSET.numQueues, config.numQueues, true);
  view.setUint32(OFFSET.maxDiscardSectors, MAX_DISCARD_SECTORS, true);
  // One segment for each request: it is one system call then.
  view.setUint32(OFFSET.maxDiscardSeg, 1, true);
  view.setUint32(OFFSET.discardSectorAlignment, physicalBlockBytes / SECTOR_BYTES, true);
  view.setUint32(OFFSET.maxWriteZeroesSectors, MAX_WRITE_ZEROES_SECTORS, true);
  view.setUint32(OFFSET.maxWriteZeroesSeg, 1, true);
  view.setUint8(OFFSET.writeZeroesMayUnmap, 1);
  return bytes;
}
