/** The virtio block device's config space and feature bits (virtio 1.3, 5.2.3 and 5.2.4). */

/** Sectors count 512 bytes whatever `blk_size` says. */
export const SECTOR_BYTES = 512;

/** struct virtio_blk_config up to and including the zoned characteristics; QEMU reads the first 57 or 60 bytes. */
const BLK_CONFIG_BYTES = 96;

const OFFSET = { capacity: 0, segMax: 12, blkSize: 20, writeback: 32, numQueues: 34 } as const;

/** Where a driver with CONFIG_WCE toggles the cache: one byte, 0 write-through, 1 write-back. */
export const WRITEBACK_OFFSET = OFFSET.writeback;

export const blkFeature = {
  SEG_MAX: 1n << 2n,
  RO: 1n << 5n,
  BLK_SIZE: 1n << 6n,
  FLUSH: 1n << 9n,
  CONFIG_WCE: 1n << 11n,
  MQ: 1n << 12n,
} as const;

/** A ring of 128 descriptors, QEMU's default, less the request's header and status. Indirect tables allow no more. */
const SEG_MAX = 126;

export interface BlkConfig {
  readonly capacityBytes: number;
  readonly writeback: boolean;
  readonly numQueues: number;
}

/** The config space as the driver sees it. */
export function encodeBlkConfig(config: BlkConfig): Uint8Array {
  const bytes = new Uint8Array(BLK_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(OFFSET.capacity, BigInt(config.capacityBytes / SECTOR_BYTES), true);
  view.setUint32(OFFSET.segMax, SEG_MAX, true);
  view.setUint32(OFFSET.blkSize, SECTOR_BYTES, true);
  view.setUint8(OFFSET.writeback, config.writeback ? 1 : 0);
  view.setUint16(OFFSET.numQueues, config.numQueues, true);
  return bytes;
}
