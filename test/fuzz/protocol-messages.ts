import {
  type Dialect,
  dialects,
  frontendMessages,
  headerFlag,
  type Message,
  payloads,
  tableFor,
  virtioFeature,
} from "../../src/wire/mod.ts";
import { REGION_BYTES } from "./protocol-fds.ts";

export type Random = (limit: number) => number;

export const USER_BASE = 0x7f00_0000_0000;
export const RING_BYTES = 0x4000;

export interface FuzzMessage {
  readonly request: number;
  readonly name: string;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** Indices into the pool of fds. */
  readonly fds: readonly number[];
}

export const pick = <T>(random: Random, items: readonly T[]): T => items[random(items.length)]!;

const NUMBERS = [0, 1, 2, 3, 16, 64, 0x7fff, 0x8000, 0xffff, 0x10000, 0x80008000, 0xffffffff];
/** Small indices mostly: the device has 4 queues. */
const INDICES = [0, 0, 0, 1, 1, 2, 3, 4, 255];
const ADDRESSES = [
  0,
  USER_BASE,
  USER_BASE + 0x1000,
  USER_BASE + 0x2000,
  USER_BASE + REGION_BYTES - 16,
  USER_BASE + 3,
  2 ** 52,
];

const region = (random: Random) => ({
  guestAddress: pick(random, [0, 0, REGION_BYTES, 4096, 1]),
  sizeBytes: pick(random, [REGION_BYTES, REGION_BYTES, 4096, 0, 2 ** 40]),
  userAddress: pick(random, [USER_BASE, USER_BASE, USER_BASE + REGION_BYTES, 0]),
  mmapOffset: pick(random, [0, 0, 0, 4096, 2 ** 50]),
});

/** A refused GET_VRING_BASE ends the session. */
const existing = (random: Random) =>
  payloads.vringState.encode({ index: random(30) === 0 ? 9 : random(4), num: 0 });
const state = (random: Random) =>
  payloads.vringState.encode({ index: pick(random, INDICES), num: pick(random, NUMBERS) });
const enable = (random: Random) =>
  payloads.vringState.encode({ index: pick(random, INDICES), num: random(3) });
const vringFd = (random: Random) =>
  payloads.vringFd.encode({ index: pick(random, INDICES), noFd: random(4) === 0 });
const iotlb = (random: Random) =>
  payloads.iotlb.encode({
    iova: BigInt(pick(random, [0, 0x1000, 0x2000, 2 ** 52])),
    sizeBytes: pick(random, [0n, 4096n, BigInt(REGION_BYTES), (1n << 64n) - 1n]),
    userAddress: BigInt(pick(random, ADDRESSES)),
    permission: random(5),
    type: random(6),
  });

/** Payloads that are mostly well-formed and often legal; what is not listed gets random bytes of a legal size. */
const makers: Partial<Record<string, (random: Random) => Uint8Array>> = {
  SET_FEATURES: (random) => {
    const base = virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1;
    const extra = [
      0n,
      1n,
      virtioFeature.LOG_ALL,
      virtioFeature.RING_PACKED,
      virtioFeature.RING_EVENT_IDX,
      virtioFeature.ACCESS_PLATFORM,
      1n << 63n,
    ];
    return payloads.value64.encode({ value: base | pick(random, extra) | pick(random, extra) });
  },
  SET_PROTOCOL_FEATURES: (random) =>
    payloads.value64.encode({ value: pick(random, [0x8n, 0x25dfffn & ~0x40n, 0xffn, 0n]) }),
  SET_VRING_NUM: state,
  SET_VRING_BASE: state,
  GET_VRING_BASE: existing,
  GET_VRING_BASE_SKIP_DRAIN: existing,
  VRING_KICK: state,
  SET_VRING_ENABLE: enable,
  SET_VRING_KICK: vringFd,
  SET_VRING_CALL: vringFd,
  SET_VRING_ERR: vringFd,
  SET_VRING_ADDR: (random) =>
    payloads.vringAddr.encode({
      index: pick(random, INDICES),
      flags: random(3),
      descriptor: pick(random, ADDRESSES),
      available: pick(random, ADDRESSES),
      used: pick(random, ADDRESSES),
      log: pick(random, ADDRESSES),
    }),
  SET_MEM_TABLE: (random) =>
    payloads.memoryTable.encode({ regions: Array.from({ length: random(3) }, () => region(random)) }),
  ADD_MEM_REG: (random) => payloads.singleMemoryRegion.encode({ region: region(random) }),
  REM_MEM_REG: (random) => payloads.singleMemoryRegion.encode({ region: region(random) }),
  SET_LOG_BASE: (random) =>
    payloads.log.encode({
      sizeBytes: pick(random, [0, 8, 4096, 2 ** 40]),
      offset: pick(random, [0, 8, 4096]),
    }),
  IOTLB_MSG: iotlb,
  GET_INFLIGHT_FD: (random) =>
    payloads.inflight.encode({
      sizeBytes: 0,
      mmapOffset: 0,
      numQueues: random(6),
      queueSize: pick(random, [0, 1, 16, 64]),
    }),
  SET_INFLIGHT_FD: (random) =>
    payloads.inflight.encode({
      sizeBytes: pick(random, [0, 4096, 8192]),
      mmapOffset: random(2) * 64,
      numQueues: 1 + random(4),
      queueSize: pick(random, [1, 16, 64]),
    }),
  GET_CONFIG: (random) => {
    const sizeBytes = pick(random, [0, 1, 16, 17, 256]);
    return payloads.config.encode({
      offset: pick(random, [0, 8, 15, 0xffffffff]),
      sizeBytes,
      flags: 0,
      payload: new Uint8Array(sizeBytes),
    });
  },
  SET_DEVICE_STATE_FD: (random) =>
    payloads.deviceStateRequest.encode({ direction: random(3), phase: random(12) === 0 ? 1 : 0 }),
  SET_STATUS: (random) => payloads.value64.encode({ value: BigInt(random(5)) }),
};

/** POSTCOPY_LISTEN makes page faults of this thread wait for a front-end that is this thread, too: left out. */
const LEFT_OUT = new Set(["POSTCOPY_LISTEN"]);

/** Rarely sent, or nothing deep would be reached: what resets, takes features away, or cannot be refused politely. */
const ENDS_SESSION = new Set([
  "CREATE_CRYPTO_SESSION",
  "GET_VRING_BASE_SKIP_DRAIN",
  "SET_LOG_BASE",
  "RESET_DEVICE",
  "SET_STATUS",
  "SET_PROTOCOL_FEATURES",
]);

/** One message as a peer may send it, that follows from the random numbers alone. */
export function randomMessage(table: readonly Message[], random: Random, poolSize: number): FuzzMessage {
  if (random(64) === 0) {
    const request = pick(random, [0, 46, 99, 1000, 1004, 0xffffffff]);
    return {
      request,
      name: "unknown",
      flags: flagsOf(random),
      payload: new Uint8Array(random(64)),
      fds: fdsOf(random, 0, 2, poolSize),
    };
  }
  let message = pick(random, table);
  while (LEFT_OUT.has(message.name) || (ENDS_SESSION.has(message.name) && random(10) !== 0))
    message = pick(random, table);
  const payload = damaged(makers[message.name]?.(random) ?? randomPayload(message, random), random);
  const { min, max } = message.fds;
  const wanted =
    message.name === "SET_MEM_TABLE" ? (payload[0] ?? 0) : min + random(Math.min(max, 2) - min + 1);
  const fds = fdsOf(random, wanted, wanted, poolSize);
  return { request: message.number, name: message.name, flags: flagsOf(random), payload, fds };
}

export const frontendTable: readonly Message[] = Object.values(frontendMessages) as unknown as Message[];

export function backendTable(dialect: Dialect = dialects.crosvm): readonly Message[] {
  return [...tableFor(dialect).backend.values()];
}

/** Mostly with NEED_REPLY: a refusal without it ends the session, and nothing deep would be reached. */
function flagsOf(random: Random): number {
  if (random(1000) === 0) return random(32);
  return random(80) === 0 ? headerFlag.VERSION : headerFlag.VERSION | headerFlag.NEED_REPLY;
}

function fdsOf(random: Random, min: number, max: number, poolSize: number): number[] {
  const count = random(24) === 0 ? random(4) : min + random(max - min + 1);
  return Array.from({ length: Math.min(count, 9) }, () => random(poolSize));
}

function randomPayload({ sizeBytes }: Message, random: Random): Uint8Array {
  const most = Math.min(sizeBytes.max, 64);
  const length = sizeBytes.min + (most > sizeBytes.min ? random(most - sizeBytes.min) : 0);
  return Uint8Array.from({ length }, () => (random(3) === 0 ? random(256) : 0));
}

function damaged(payload: Uint8Array, random: Random): Uint8Array {
  switch (random(120)) {
    case 0:
      return payload.subarray(0, random(payload.length + 1));
    case 1:
      return Uint8Array.from([...payload, ...new Uint8Array(random(16))]);
    case 2: {
      const copy = Uint8Array.from(payload);
      if (copy.length > 0) copy[random(copy.length)] = random(256);
      return copy;
    }
    default:
      return payload;
  }
}
