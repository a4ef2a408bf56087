/** Guest memory: regions, address translation, the dirty log, the device IOTLB. One instance per thread. */
export type { AddressSpace } from "./address-space.ts";
export { DirtyBitmap } from "./dirty-bitmap.ts";
export { DirtyLog, type DirtyLogPlace, type SharedDirtyLog } from "./dirty-log.ts";
export { GuestMemory, type GuestMemoryOptions } from "./guest-memory.ts";
export { Iotlb, type IotlbEntry, type IotlbMiss, IotlbPermission } from "./iotlb.ts";
export { MemoryRegion, PAGE_BYTES, type RegionLayout, type SharedRegion } from "./memory-region.ts";
export { type PageRun, PageSet } from "./page-set.ts";
export { requireSealed } from "./require-sealed.ts";
