/** A virtio block device on a raw image. */
export { blkFeature } from "./config.ts";
export { BlkDevice, type BlkOptions } from "./device.ts";
export { DiskImage } from "./disk-image.ts";
