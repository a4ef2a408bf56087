import type { Fd } from "../sys/mod.ts";
import type { SharedRegion } from "./backend-client.ts";
import type { Interrupt } from "./interrupt.ts";

/** A queue as the driver has set it up. Addresses are guest-physical. */
export interface QueueSetup {
  readonly index: number;
  readonly size: number;
  readonly descriptor: number;
  readonly available: number;
  readonly used: number;
  /** Where the ring goes on: what `sleep` gave, 0 (packed: 0x80008000) for a fresh one. */
  readonly base: number;
  /** Interrupt vector; undefined: the fallback event. */
  readonly vector?: number | undefined;
  /** What the driver signals; stays the caller's. */
  readonly kick: Fd;
}

/** A shared memory region of the device. */
export interface SharedMemoryRegionInfo {
  readonly id: number;
  readonly sizeBytes: number;
}

/** A virtio device as a VMM or a transport sees it, whoever implements it. */
export interface VirtioDevice {
  /** The virtio device ID. */
  readonly deviceType: number;
  /** Feature bits for the driver. */
  readonly features: bigint;
  /** The largest size of each queue. */
  readonly queueMaxSizes: readonly number[];
  readonly sharedMemoryRegions: readonly SharedMemoryRegionInfo[];
  ackFeatures(features: bigint): void;
  readConfig(offset: number, sizeBytes: number): Uint8Array;
  writeConfig(offset: number, bytes: Uint8Array): void;
  activate(memory: readonly SharedRegion[], interrupt: Interrupt, queues: readonly QueueSetup[]): void;
  /** Stops all queues; `activate` starts anew. */
  reset(): void;
  /** Stops all queues and returns their bases by index; the device is suspended then. */
  sleep(): ReadonlyMap<number, number>;
  /** Goes on after `sleep` with the same queues. */
  wake(memory: readonly SharedRegion[], interrupt: Interrupt, queues: readonly QueueSetup[]): void;
}
