/** A driver's side of a device over our front-end: guest memory, queues, requests; and drivers for disks and file systems. */
export { BlkDriver } from "./blk-driver.ts";
export { ConsoleDriver, type ControlTold } from "./console-driver.ts";
export { Driver, type DriverOptions, type DriverState } from "./driver.ts";
export { DriverMemory } from "./driver-memory.ts";
export { DriverQueue, type DriverQueueOptions, type DriverQueueState } from "./driver-queue.ts";
