import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { VhuError } from "../../src/errors.ts";
import { Mapping } from "../../src/sys/mod.ts";
import { Chain, type DeviceRing, InflightRegion } from "../../src/vring/mod.ts";
import { KINDS, MEMORY_BYTES, RingFixture } from "../vring/ring-fixture.ts";

const SIZE = 8;
/** Features, version and desc_num of the inflight region. */
const HEADER_BYTES = 12;

/** Numbers that are right often enough for a chain to get far before it goes wrong. */
const half = fc.oneof(
  fc.nat(0xffff),
  fc.nat(SIZE),
  fc.constantFrom(0, 1, 2, 4, 0x80, 0x8000, 0x8080, 0x81, 0x8001),
);
const word = fc.oneof(fc.nat({ max: 0xffffffff }), fc.nat(MEMORY_BYTES), fc.constantFrom(0, 16, 32, 48, 128));
const descriptor = fc.tuple(word, fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, word), word, half, half);
const garbage = fc.record({
  descriptors: fc.array(descriptor, { minLength: SIZE, maxLength: SIZE }),
  available: fc.array(half, { minLength: SIZE + 3, maxLength: SIZE + 3 }),
  tables: fc.uint8Array({ minLength: 1024, maxLength: 1024 }),
});

function scribble(
  fixture: RingFixture,
  mess: typeof garbage extends fc.Arbitrary<infer T> ? T : never,
): void {
  mess.descriptors.forEach(([low, high, length, third, fourth], i) => {
    fixture.setDescriptor(i, BigInt(low) | (BigInt(high) << 32n), length, third, fourth);
  });
  mess.available.forEach((value, i) => {
    fixture.setHalf(fixture.availableAddress + i * 2, value);
  });
  fixture.memory.write(0, mess.tables);
}

/** Serves what can be served. Every chain it gets is checked against guest memory. */
function serve(fixture: RingFixture, ring: DeviceRing): void {
  const taken: Chain[] = [];
  for (let i = 0; i < 3 * SIZE; i++) {
    const chain = new Chain();
    try {
      if (!ring.pop(chain)) break;
    } catch (error) {
      expect(error).toBeInstanceOf(VhuError);
      break;
    }
    expect(ring.inFlight).toBeLessThanOrEqual(SIZE);
    for (let piece = 0; piece < chain.pieceCount; piece++) {
      const address = fixture.memory.nativeAddress(chain.guestAddresses[piece]!, chain.lengths[piece]!);
      expect(address).toBe(chain.addresses[piece]!);
      expect(chain.lengths[piece]).toBeGreaterThan(0);
    }
    taken.push(chain);
    if (i % 3 !== 0) ring.complete(taken.shift()!, 0);
    if (i % 5 === 0) ring.publish();
    ring.enableNotifications();
  }
  for (const chain of taken) ring.complete(chain, 0);
  ring.publish();
}

describe("a hostile driver neither crashes nor hangs the device", () => {
  for (const { name, ...kind } of KINDS) {
    test(name, () => {
      fc.assert(
        fc.property(garbage, garbage, (first, second) => {
          using fixture = new RingFixture({ ...kind, size: SIZE });
          using ring = fixture.device();
          for (const mess of [first, second]) {
            scribble(fixture, mess);
            serve(fixture, ring);
          }
          expect(ring.inFlight).toBe(0);
        }),
        { numRuns: 400 },
      );
    }, 60_000);
  }
});

describe("a hostile inflight region is refused or served", () => {
  for (const packed of [false, true]) {
    test(packed ? "packed" : "split", () => {
      const region = fc.uint8Array({ minLength: 320, maxLength: 320 });
      fc.assert(
        fc.property(garbage, region, fc.boolean(), half, (mess, bytes, small, usedIndex) => {
          using fixture = new RingFixture({ packed, size: SIZE });
          const { fd, ...place } = InflightRegion.create({ numQueues: 1, queueSize: SIZE, packed });
          using peer = Mapping.ofFd(fd, { sizeBytes: place.sizeBytes });
          const shared = new Uint8Array(peer.window(0, place.sizeBytes));
          using opened = InflightRegion.open(fd, { ...place, numQueues: 1, queueSize: SIZE, packed });
          const inflight = opened.queue(0);
          // The first life prepares a valid header; then the peer scribbles over the rest.
          fixture.device({ inflight })[Symbol.dispose]();
          scribble(fixture, mess);
          fixture.setHalf(fixture.usedAddress + 2, usedIndex);
          // Small numbers hit more: they are heads, entries and counts that exist.
          for (let i = HEADER_BYTES; i < shared.length; i++)
            shared[i] = small ? bytes[i % 320]! % 5 : bytes[i % 320]!;
          let ring: DeviceRing;
          try {
            ring = fixture.device({ inflight });
          } catch (error) {
            expect(error).toBeInstanceOf(VhuError);
            return;
          }
          using _ = ring;
          try {
            serve(fixture, ring);
          } catch (error) {
            expect(error).toBeInstanceOf(VhuError);
          }
        }),
        { numRuns: 1000 },
      );
    }, 60_000);
  }
});
