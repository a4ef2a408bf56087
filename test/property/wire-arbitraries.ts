import fc from "fast-check";
import { type Codec, payloads as p } from "../../src/wire/mod.ts";

const byte = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.nat({ max: 0xffff_ffff });
const u64 = fc.oneof(fc.maxSafeNat(), fc.constantFrom(0, 0xffff_ffff, 2 ** 32, Number.MAX_SAFE_INTEGER));
const mask64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const bytes = (minLength: number, maxLength = minLength) =>
  fc.uint8Array({ minLength, maxLength }).map((array) => Uint8Array.from(array));
const bytesOf = (...sizes: number[]) => fc.oneof(...sizes.map((size) => bytes(size)));

const region = fc.record({ guestAddress: u64, sizeBytes: u64, userAddress: u64, mmapOffset: u64 });
const config = fc
  .record({ offset: u32, flags: u32, payload: bytes(0, 256) })
  .map((value) => ({ ...value, sizeBytes: value.payload.length }));
const sharedRegion = fc.record({ id: byte, sizeBytes: u64 });

interface Shape {
  readonly codec: Codec<unknown>;
  readonly values: fc.Arbitrary<unknown>;
  /** Whether the byte at this offset of the payload is padding, which is neither read nor kept. */
  readonly isPadding: (offset: number) => boolean;
}

const shape = <T>(
  codec: Codec<T>,
  values: fc.Arbitrary<T>,
  isPadding: (offset: number) => boolean = () => false,
): Shape => ({ codec, values, isPadding });
const within = (from: number, to: number) => (offset: number) => offset >= from && offset < to;

/** Random values for every payload and reply body of every table, and where their padding is. */
export const shapes: readonly Shape[] = [
  shape(p.empty, fc.constant({})),
  shape(p.value64, fc.record({ value: mask64 })),
  shape(p.vringState, fc.record({ index: u32, num: u32 })),
  shape(
    p.vringAddr,
    fc.record({ index: u32, flags: u32, descriptor: u64, used: u64, available: u64, log: u64 }),
  ),
  shape(p.vringFd, fc.record({ index: byte, noFd: fc.boolean() })),
  shape(p.vringArea, fc.record({ index: byte, noFd: fc.boolean(), sizeBytes: u64, offset: u64 })),
  shape(p.memoryTable, fc.record({ regions: fc.array(region, { maxLength: 8 }) }), within(4, 8)),
  shape(p.singleMemoryRegion, fc.record({ region }), within(0, 8)),
  shape(p.log, fc.record({ sizeBytes: u64, offset: u64 })),
  shape(p.logReply, fc.record({ payload: bytesOf(0, 8, 16) })),
  shape(
    p.iotlb,
    fc.record({ iova: mask64, sizeBytes: mask64, userAddress: mask64, permission: byte, type: byte }),
    within(26, 32),
  ),
  shape(p.config, config),
  shape(p.configReply, config),
  shape(
    p.inflight,
    fc.record({ sizeBytes: u64, mmapOffset: u64, numQueues: u16, queueSize: u16 }),
    within(20, 24),
  ),
  shape(p.deviceStateRequest, fc.record({ direction: u32, phase: u32 })),
  shape(
    p.shmemConfig,
    fc.record({ count: u32, sizes: fc.array(u64, { minLength: 256, maxLength: 256 }) }),
    within(4, 8),
  ),
  shape(
    p.mmap,
    fc.record({ shmid: byte, fdOffset: u64, shmOffset: u64, sizeBytes: u64, flags: u64 }),
    within(1, 8),
  ),
  shape(p.sharedObject, fc.record({ uuid: bytes(16) })),
  shape(p.sharedObjectReply, fc.record({ payload: bytesOf(0, 16) })),
  shape(p.cryptoSession, fc.record({ payload: bytes(0, 4096) })),
  shape(
    p.gpuMap,
    fc.record({
      shmid: byte,
      shmOffset: u64,
      sizeBytes: u64,
      memoryIndex: u32,
      handleType: u32,
      deviceUuid: bytes(16),
      driverUuid: bytes(16),
    }),
    within(1, 8),
  ),
  shape(
    p.externalMap,
    fc.record({ shmid: byte, shmOffset: u64, sizeBytes: u64, pointer: mask64 }),
    within(1, 8),
  ),
  shape(
    p.crosvm2024ShmemMap,
    fc.record({ flags: fc.constantFrom(0, 1), shmid: byte, shmOffset: u64, fdOffset: u64, sizeBytes: u64 }),
    within(2, 8),
  ),
  shape(
    p.crosvm2024ShmemUnmap,
    fc.record({
      shmid: byte,
      shmOffset: u64,
      sizeBytes: u64,
      fdOffset: fc.constant(0),
      flags: fc.constant(0),
    }),
    within(1, 8),
  ),
  shape(
    p.crosvm2024Regions,
    fc.record({ regions: fc.array(sharedRegion, { maxLength: 255 }) }),
    (offset) => offset >= 8 && (offset - 8) % 16 >= 1 && (offset - 8) % 16 < 8,
  ),
];

const byCodec = new Map(shapes.map((entry) => [entry.codec, entry]));

/** The shape of a codec that a table uses. */
export function shapeOf(codec: Codec<unknown>): Shape {
  const found = byCodec.get(codec);
  if (found === undefined)
    throw new Error("a payload has no arbitrary: add it to test/property/wire-arbitraries.ts");
  return found;
}
