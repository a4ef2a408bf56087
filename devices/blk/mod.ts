/** A virtio block device on a raw image. */
export { blkFeature } from "./config.ts";
export { BlkDevice, type BlkIo, type BlkOptions } from "./device.ts";
export { DiskImage, type DiskImageOptions } from "./disk-image.ts";
