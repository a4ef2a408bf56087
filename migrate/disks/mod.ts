/** The disks of a VM as they were at the moment of a save. */

export { checkDiskCopy, type StoredDiskCopy, unsealDiskCopy } from "./check-disk-copy.ts";
export { type CopyOptions, copyImage } from "./copy-image.ts";
export { copyPath, DiskCopies, type DiskCopiesOptions, type DiskCopy } from "./disk-copies.ts";
