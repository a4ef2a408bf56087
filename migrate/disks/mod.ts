/** The disks of a VM as they were at the moment of a save. */
export { type CopyOptions, copyImage } from "./copy-image.ts";
export { copyPath, DiskCopies, type DiskCopy } from "./disk-copies.ts";
