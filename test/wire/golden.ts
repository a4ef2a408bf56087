import type { BackendMessageName, FrontendMessageName, Payload, Reply } from "../../src/wire/mod.ts";

/** A value and its bytes in hex, in groups that follow the fields; `undefined` where there is no body. */
export type Golden<T> = readonly [value: T, hex: string] | undefined;
type GoldenTable<N extends FrontendMessageName | BackendMessageName> = {
  readonly [K in N]: { readonly request: Golden<Payload<K>>; readonly reply: Golden<Reply<K>> };
};

const none = [{}, ""] as const;
const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));
const range = (from: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, i) => from + i);

/** 0x175007e46: what qemu-storage-daemon 10.0.2 offers (reference trace of a blk boot). */
const features = [{ value: 0x1_7500_7e46n }, "467e007501000000"] as const;
const protocolFeatures = [{ value: 0x8f2bn }, "2b8f000000000000"] as const;
const one = [{ value: 1n }, "0100000000000000"] as const;
const ok = [{ value: 0n }, "0000000000000000"] as const;
const state = [{ index: 1, num: 128 }, "01000000 80000000"] as const;
const kick = [{ index: 3, noFd: false }, "0300000000000000"] as const;
const kickWithoutFd = [{ index: 255, noFd: true }, "ff01000000000000"] as const;

/** ADD_MEM_REG of the blk boot trace, with an offset of our own. */
const region = { guestAddress: 0, sizeBytes: 0x2000_0000, userAddress: 0x7fde_f7ff_f000, mmapOffset: 0x1000 };
const regionHex = "0000000000000000 0000002000000000 00f0fff7de7f0000 0010000000000000";
const highRegion = {
  guestAddress: 0x1_0000_0000,
  sizeBytes: 0x1_c000_0000,
  userAddress: 0x7f00_0000_0000,
  mmapOffset: 0xc000_0000,
};
const highRegionHex = "0000000001000000 000000c001000000 00000000007f0000 000000c000000000";
const table = [{ regions: [region, highRegion] }, `02000000 00000000 ${regionHex} ${highRegionHex}`] as const;
const singleRegion = [{ region }, `0000000000000000 ${regionHex}`] as const;

const iotlb = [
  {
    iova: 0xffff_ffff_ffff_f000n,
    sizeBytes: 0x1000n,
    userAddress: 0x7fde_f7ff_f000n,
    permission: 3,
    type: 2,
  },
  "00f0ffffffffffff 0010000000000000 00f0fff7de7f0000 03 02 000000000000",
] as const;
const inflight = [
  { sizeBytes: 0x2040, mmapOffset: 0, numQueues: 2, queueSize: 128 },
  "4020000000000000 0000000000000000 0200 8000 00000000",
] as const;
const config = [
  { offset: 8, sizeBytes: 4, flags: 1, payload: bytes("7e000001") },
  "08000000 04000000 01000000 7e000001",
] as const;
const uuid = [{ uuid: range(0x10, 16) }, "101112131415161718191a1b1c1d1e1f"] as const;
const mmap = [
  { shmid: 2, fdOffset: 0x3000, shmOffset: 0x10_0000, sizeBytes: 0x2000, flags: 1 },
  "02 00000000000000 0030000000000000 0000100000000000 0020000000000000 0100000000000000",
] as const;
const shmemSizes = Array.from({ length: 256 }, (_, shmid) => (shmid === 1 ? 0x2_0000_0000 : 0));

export const frontendGolden: GoldenTable<FrontendMessageName> = {
  GET_FEATURES: { request: none, reply: features },
  SET_FEATURES: { request: features, reply: undefined },
  SET_OWNER: { request: none, reply: undefined },
  RESET_OWNER: { request: none, reply: undefined },
  SET_MEM_TABLE: { request: table, reply: table },
  SET_LOG_BASE: {
    request: [{ sizeBytes: 0x4000, offset: 0 }, "0040000000000000 0000000000000000"],
    reply: [{ payload: bytes("0040000000000000") }, "0040000000000000"],
  },
  SET_LOG_FD: { request: none, reply: undefined },
  SET_VRING_NUM: { request: state, reply: undefined },
  SET_VRING_ADDR: {
    request: [
      {
        index: 1,
        flags: 1,
        descriptor: 0x7f56_f071_9000,
        used: 0x7f56_f071_9940,
        available: 0x7f56_f071_9800,
        log: 0x1471_a940,
      },
      "01000000 01000000 009071f0567f0000 409971f0567f0000 009871f0567f0000 40a9711400000000",
    ],
    reply: undefined,
  },
  SET_VRING_BASE: { request: [{ index: 0, num: 0xffff_ffff }, "00000000 ffffffff"], reply: undefined },
  GET_VRING_BASE: { request: state, reply: [{ index: 0, num: 32263 }, "00000000 077e0000"] },
  SET_VRING_KICK: { request: kick, reply: undefined },
  SET_VRING_CALL: { request: kickWithoutFd, reply: undefined },
  SET_VRING_ERR: { request: kick, reply: undefined },
  GET_PROTOCOL_FEATURES: { request: none, reply: protocolFeatures },
  SET_PROTOCOL_FEATURES: { request: protocolFeatures, reply: undefined },
  GET_QUEUE_NUM: { request: none, reply: one },
  SET_VRING_ENABLE: { request: [{ index: 1, num: 1 }, "01000000 01000000"], reply: undefined },
  SEND_RARP: { request: [{ value: 0x5634_1200_5452n }, "5254001234560000"], reply: undefined },
  NET_SET_MTU: { request: [{ value: 1500n }, "dc05000000000000"], reply: undefined },
  SET_BACKEND_REQ_FD: { request: none, reply: undefined },
  IOTLB_MSG: { request: iotlb, reply: ok },
  SET_VRING_ENDIAN: { request: [{ index: 2, num: 1 }, "02000000 01000000"], reply: undefined },
  GET_CONFIG: { request: config, reply: config },
  SET_CONFIG: { request: config, reply: undefined },
  CREATE_CRYPTO_SESSION: {
    request: [{ payload: range(0, 5) }, "0001020304"],
    reply: [{ payload: range(5, 3) }, "050607"],
  },
  CLOSE_CRYPTO_SESSION: { request: one, reply: undefined },
  POSTCOPY_ADVISE: { request: none, reply: none },
  POSTCOPY_LISTEN: { request: none, reply: undefined },
  POSTCOPY_END: { request: none, reply: ok },
  GET_INFLIGHT_FD: { request: inflight, reply: inflight },
  SET_INFLIGHT_FD: { request: inflight, reply: undefined },
  GPU_SET_SOCKET: { request: none, reply: undefined },
  RESET_DEVICE: { request: none, reply: undefined },
  VRING_KICK: { request: [{ index: 4, num: 0 }, "04000000 00000000"], reply: undefined },
  GET_MAX_MEM_SLOTS: { request: none, reply: [{ value: 0x1fdn }, "fd01000000000000"] },
  ADD_MEM_REG: { request: singleRegion, reply: singleRegion },
  REM_MEM_REG: { request: singleRegion, reply: undefined },
  SET_STATUS: { request: [{ value: 0x0fn }, "0f00000000000000"], reply: undefined },
  GET_STATUS: { request: none, reply: [{ value: 0x0bn }, "0b00000000000000"] },
  GET_SHARED_OBJECT: { request: uuid, reply: [{ payload: new Uint8Array(0) }, ""] },
  SET_DEVICE_STATE_FD: {
    request: [{ direction: 1, phase: 0 }, "01000000 00000000"],
    reply: [{ value: 0x100n }, "0001000000000000"],
  },
  CHECK_DEVICE_STATE: { request: none, reply: ok },
  GET_SHMEM_CONFIG: {
    request: none,
    reply: [
      { count: 1, sizes: shmemSizes },
      `01000000 00000000 0000000000000000 0000000002000000 ${"00".repeat(8 * 254)}`,
    ],
  },
  GET_VRING_BASE_SKIP_DRAIN: {
    request: state,
    reply: [{ index: 1, num: 0x8003_8005 }, "01000000 05800380"],
  },
  GET_SHARED_MEMORY_REGIONS: {
    request: none,
    reply: [
      {
        regions: [
          { id: 1, sizeBytes: 0x2_0000_0000 },
          { id: 4, sizeBytes: 0x1000 },
        ],
      },
      "0200000000000000 01 00000000000000 0000000002000000 04 00000000000000 0010000000000000",
    ],
  },
};

export const backendGolden: GoldenTable<Exclude<BackendMessageName, "IOTLB_MSG">> & {
  readonly IOTLB_MSG: { readonly request: Golden<Payload<"IOTLB_MSG">>; readonly reply: undefined };
} = {
  IOTLB_MSG: { request: iotlb, reply: undefined },
  CONFIG_CHANGE_MSG: { request: none, reply: undefined },
  VRING_HOST_NOTIFIER_MSG: {
    request: [
      { index: 7, noFd: true, sizeBytes: 0x1000, offset: 0x3000 },
      "0701000000000000 0010000000000000 0030000000000000",
    ],
    reply: undefined,
  },
  VRING_CALL: { request: [{ index: 3, num: 0 }, "03000000 00000000"], reply: undefined },
  VRING_ERR: { request: [{ index: 2, num: 0 }, "02000000 00000000"], reply: undefined },
  SHARED_OBJECT_ADD: { request: uuid, reply: undefined },
  SHARED_OBJECT_REMOVE: { request: uuid, reply: undefined },
  SHARED_OBJECT_LOOKUP: { request: uuid, reply: one },
  SHMEM_MAP: { request: mmap, reply: undefined },
  SHMEM_UNMAP: { request: mmap, reply: undefined },
  GPU_MAP: {
    request: [
      {
        shmid: 1,
        shmOffset: 0x1000,
        sizeBytes: 0x8000,
        memoryIndex: 5,
        handleType: 3,
        deviceUuid: range(0x20, 16),
        driverUuid: range(0x40, 16),
      },
      `01 00000000000000 0010000000000000 0080000000000000 05000000 03000000
       202122232425262728292a2b2c2d2e2f 404142434445464748494a4b4c4d4e4f`,
    ],
    reply: ok,
  },
  EXTERNAL_MAP: {
    request: [
      { shmid: 1, shmOffset: 0x1000, sizeBytes: 0x8000, pointer: 0x7fde_f7ff_f000n },
      "01 00000000000000 0010000000000000 0080000000000000 00f0fff7de7f0000",
    ],
    reply: ok,
  },
};

/** The rows of the crosvm-2024 dialect that carry the spec's names. */
export const crosvm2024Golden = {
  SHMEM_MAP: {
    request: [
      { shmid: 2, fdOffset: 0x3000, shmOffset: 0x10_0000, sizeBytes: 0x2000, flags: 1 },
      "03 02 000000000000 0000100000000000 0030000000000000 0020000000000000",
    ],
    reply: [{ value: 0xffff_ffff_ffff_ffeen }, "eeffffffffffffff"],
  },
  SHMEM_UNMAP: {
    request: [
      { shmid: 2, fdOffset: 0, shmOffset: 0x10_0000, sizeBytes: 0x2000, flags: 0 },
      "02 00000000000000 0000100000000000 0020000000000000",
    ],
    reply: ok,
  },
} as const;

export const fromHex = (hex: string): Uint8Array => bytes(hex.replace(/\s+/g, ""));
