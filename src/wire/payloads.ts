import { MAX_CONFIG_BYTES, MAX_MEM_TABLE_REGIONS, MAX_PAYLOAD_BYTES, MAX_SHMEM_REGIONS } from "../limits.ts";
import { array, countOf, fixedArray, lengthOf } from "./array.ts";
import { bytesOfSizes, fixedBytes, pad, remainingBytes, zeros } from "./bytes.ts";
import type { ValueOf } from "./codec.ts";
import { absent, flag, mask64, translated, u8, u16, u32, u64 } from "./scalars.ts";
import { orEmpty, struct } from "./schema.ts";

/** No payload. */
export const empty = struct({});

/** 64 bits whose meaning the message gives: a mask, a number, an acknowledgement (0 = ok). */
export const value64 = struct({ value: mask64 });

export const vringState = struct({ index: u32, num: u32 });

/** Ring addresses are user addresses, IOVAs or, with GPA_ADDRESSES, guest addresses. `flags` bit 0: log the used ring. */
export const vringAddr = struct({
  index: u32,
  flags: u32,
  descriptor: u64,
  used: u64,
  available: u64,
  log: u64,
});

/** A u64: bits 0-7 are the ring's index, bit 8 says that no fd comes with the message; others have no meaning. */
const vringIndex = { index: u8, noFd: flag, reserved: zeros(6) } as const;

export const vringFd = struct(vringIndex);

export const vringArea = struct({ ...vringIndex, sizeBytes: u64, offset: u64 });

export const memoryRegion = struct({ guestAddress: u64, sizeBytes: u64, userAddress: u64, mmapOffset: u64 });

export const memoryTable = struct({
  numRegions: countOf(u32, memoryRegion, MAX_MEM_TABLE_REGIONS),
  padding: pad(4),
  regions: array(memoryRegion, MAX_MEM_TABLE_REGIONS),
});

export const singleMemoryRegion = struct({ padding: pad(8), region: memoryRegion });

/** Where the dirty log lies in its fd. */
export const log = struct({ sizeBytes: u64, offset: u64 });

/** Implementations differ (rust-vmm 16 bytes, libvhost-user 8, DPDK 0) and the content means nothing. */
export const logReply = struct({ payload: bytesOfSizes(0, 8, 16) });

/** Permission: bit 0 read, bit 1 write. Type: 1 miss, 2 update, 3 invalidate, 4 access failure. */
export const iotlb = struct({
  iova: mask64,
  sizeBytes: mask64,
  userAddress: mask64,
  permission: u8,
  type: u8,
  padding: pad(6),
});

/** `flags`: 0 the guest writes, 1 live migration. */
export const config = struct({
  offset: u32,
  sizeBytes: lengthOf(u32, MAX_CONFIG_BYTES),
  flags: u32,
  payload: remainingBytes(0, MAX_CONFIG_BYTES),
});

/** An error is a reply whose config bytes are missing: the header with size 0 (rust-vmm), or nothing (libvhost-user). */
export const configReply = orEmpty(config, {
  offset: 0,
  sizeBytes: 0,
  flags: 0,
  payload: new Uint8Array(0),
});

/** Natural alignment makes it 24 bytes: the fields alone are 20. */
export const inflight = struct({
  sizeBytes: u64,
  mmapOffset: u64,
  numQueues: u16,
  queueSize: u16,
  padding: pad(4),
});

/** Direction: 0 save, 1 load. Phase: 0 stopped. */
export const deviceStateRequest = struct({ direction: u32, phase: u32 });

/** `sizes` is indexed by shmid; `count` counts those that are not 0. */
export const shmemConfig = struct({
  count: u32,
  padding: pad(4),
  sizes: fixedArray(u64, MAX_SHMEM_REGIONS),
});

/** `flags` bit 0: read-write. */
export const mmap = struct({
  shmid: u8,
  padding: pad(7),
  fdOffset: u64,
  shmOffset: u64,
  sizeBytes: u64,
  flags: u64,
});

export const sharedObject = struct({ uuid: fixedBytes(16) });

/** libvhost-user sends the request's uuid back with the fd, the spec names no body at all. */
export const sharedObjectReply = struct({ payload: bytesOfSizes(0, 16) });

/** vhu never opens a crypto session: its description is carried, not read. */
export const cryptoSession = struct({ payload: remainingBytes(0, MAX_PAYLOAD_BYTES) });

/** crosvm's own: GPU memory that the front-end imports through Vulkan. */
export const gpuMap = struct({
  shmid: u8,
  padding: pad(7),
  shmOffset: u64,
  sizeBytes: u64,
  memoryIndex: u32,
  handleType: u32,
  deviceUuid: fixedBytes(16),
  driverUuid: fixedBytes(16),
});

/** crosvm's own: memory at an address that both sides know, because they share a process. */
export const externalMap = struct({
  shmid: u8,
  padding: pad(7),
  shmOffset: u64,
  sizeBytes: u64,
  pointer: mask64,
});

/** crosvm of 2024: other order, and a byte of R = 1, W = 2 that is given as the spec's bit 0 (1 -> 0, 3 -> 1). */
export const crosvm2024ShmemMap = struct({
  flags: translated([
    [1, 0],
    [3, 1],
  ]),
  shmid: u8,
  padding: pad(6),
  shmOffset: u64,
  fdOffset: u64,
  sizeBytes: u64,
});

/** crosvm of 2024: the mapping without fd offset and flags. */
export const crosvm2024ShmemUnmap = struct({
  shmid: u8,
  padding: pad(7),
  shmOffset: u64,
  sizeBytes: u64,
  fdOffset: absent,
  flags: absent,
});

const sharedMemoryRegion = struct({ id: u8, padding: pad(7), sizeBytes: u64 });

/** crosvm of 2024: a u64 count, then 16 bytes per region. */
export const crosvm2024Regions = struct({
  numRegions: countOf(u64, sharedMemoryRegion, 255),
  regions: array(sharedMemoryRegion, 255),
});

export type Value64 = ValueOf<typeof value64>;
export type VringState = ValueOf<typeof vringState>;
export type VringAddr = ValueOf<typeof vringAddr>;
export type VringFd = ValueOf<typeof vringFd>;
export type VringArea = ValueOf<typeof vringArea>;
export type MemoryRegion = ValueOf<typeof memoryRegion>;
export type MemoryTable = ValueOf<typeof memoryTable>;
export type Log = ValueOf<typeof log>;
export type Iotlb = ValueOf<typeof iotlb>;
export type Config = ValueOf<typeof config>;
export type Inflight = ValueOf<typeof inflight>;
export type DeviceStateRequest = ValueOf<typeof deviceStateRequest>;
export type ShmemConfig = ValueOf<typeof shmemConfig>;
export type Mmap = ValueOf<typeof mmap>;
export type GpuMap = ValueOf<typeof gpuMap>;
export type ExternalMap = ValueOf<typeof externalMap>;
