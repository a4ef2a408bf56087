import { describe, expect, test } from "bun:test";
import { StateError } from "../../src/errors.ts";
import { DirtyLog, PAGE_BYTES } from "../../src/memory/mod.ts";
import { createMemfd, Mapping } from "../../src/sys/mod.ts";
import { Chain, createDeviceRing, packBase, RingError, unpackBase } from "../../src/vring/mod.ts";
import { BUFFERS, describeChain, popAll, RingFixture } from "./ring-fixture.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
/** Available in the first lap: AVAIL set, USED clear. */
const AVAIL = 0x80;
/** Available in the second lap. */
const AVAIL_2 = 0x8000;

const packed = { packed: true };

function word(fixture: RingFixture, index: number): number[] {
  const bytes = new Uint8Array(16);
  fixture.memory.read(fixture.descriptorAddress + index * 16, bytes);
  const view = new DataView(bytes.buffer);
  return [view.getUint32(8, true), view.getUint16(12, true), view.getUint16(14, true)];
}

test("the base packs two positions, as an unsigned number", () => {
  const base = { availableIndex: 5, availableWrap: true, usedIndex: 3, usedWrap: true };
  expect(packBase(base)).toBe(0x80038005);
  expect(unpackBase(0x80038005, 8)).toEqual(base);
  expect(unpackBase(0x00030005, 8)).toEqual({ ...base, availableWrap: false, usedWrap: false });
  expect(() => unpackBase(0x80088005, 8)).toThrow(StateError);
});

describe("chains", () => {
  test("a list carries the id of its last descriptor, completions become visible together, in their order", () => {
    using fixture = new RingFixture(packed);
    using ring = fixture.device();
    fixture.setPacked(1, BUFFERS + 0x1000, 64, 1000, WRITE | AVAIL);
    fixture.setPacked(0, BUFFERS, 16, 77, NEXT | AVAIL);
    fixture.setPacked(2, BUFFERS + 0x2000, 8, 65535, WRITE | AVAIL);
    const [first, second] = popAll(ring);
    expect([first!.head, second!.head, ring.inFlight]).toEqual([1000, 65535, 2]);
    expect(describeChain(first!)).toEqual([
      { address: BUFFERS, length: 16, writable: false },
      { address: BUFFERS + 0x1000, length: 64, writable: true },
    ]);
    expect(ring.base).toBe(0x80008003);
    ring.complete(second!, 8);
    ring.complete(first!, 0);
    expect(word(fixture, 0), "untouched before publish").toEqual([16, 77, NEXT | AVAIL]);
    expect(ring.publish()).toBe(true);
    expect(word(fixture, 0)).toEqual([8, 65535, AVAIL | AVAIL_2 | WRITE]);
    expect(word(fixture, 1)).toEqual([0, 1000, AVAIL | AVAIL_2]);
    expect(ring.base).toBe(0x80038003);
  });

  test("the ring wraps at any size", () => {
    using fixture = new RingFixture({ packed: true, size: 3 });
    using ring = fixture.device({ base: 0x80028002 });
    fixture.setPacked(2, BUFFERS, 16, 1, NEXT | AVAIL);
    fixture.setPacked(0, BUFFERS, 16, 1, AVAIL_2);
    fixture.setPacked(1, BUFFERS, 16, 2, AVAIL_2);
    const chains = popAll(ring);
    expect(chains.map((chain) => chain.head)).toEqual([1, 2]);
    expect(ring.base).toBe(0x80020002);
    for (const chain of chains) ring.complete(chain, 0);
    ring.publish();
    expect(word(fixture, 2)[2]).toBe(AVAIL | AVAIL_2);
    expect(word(fixture, 1)[2], "the next lap's used flags").toBe(0);
    expect(ring.base).toBe(0x00020002);
  });

  test("an indirect table is a sequence", () => {
    using fixture = new RingFixture({ packed: true, indirect: true });
    using ring = fixture.device();
    fixture.setTableEntry(0x9000, 0, BUFFERS, 8, 0, 0);
    fixture.setTableEntry(0x9000, 1, BUFFERS + 0x1000, 9, 0, WRITE | NEXT);
    fixture.setPacked(0, 0x9000, 32, 4, INDIRECT | AVAIL);
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect(describeChain(chain).map(({ length, writable }) => [length, writable])).toEqual([
      [8, false],
      [9, true],
    ]);
    expect(ring.base).toBe(0x80008001);
  });
});

describe("an invalid chain is refused", () => {
  const cases: [string, (fixture: RingFixture) => void][] = [
    ["longer than", (f) => Array.from({ length: 8 }, (_, i) => f.setPacked(i, BUFFERS, 8, 1, NEXT | AVAIL))],
    ["has length 0", (f) => f.setPacked(0, BUFFERS, 0, 1, AVAIL)],
    ["points outside", (f) => f.setPacked(0, 2 ** 40, 8, 1, AVAIL)],
    ["above 2^53", (f) => f.setPacked(0, 2n ** 60n, 8, 1, AVAIL)],
    ["has a next one", (f) => f.setPacked(0, 0x9000, 16, 1, AVAIL | INDIRECT | NEXT)],
    [
      "follows others",
      (f) => {
        f.setPacked(1, 0x9000, 16, 1, AVAIL | INDIRECT);
        f.setPacked(0, BUFFERS, 8, 1, AVAIL | NEXT);
      },
    ],
    [
      "holds another one",
      (f) => {
        f.setTableEntry(0x9000, 0, 0x9000, 16, 0, INDIRECT);
        f.setPacked(0, 0x9000, 16, 1, AVAIL | INDIRECT);
      },
    ],
    [
      "readable descriptor follows",
      (f) => {
        f.setPacked(1, BUFFERS, 8, 1, AVAIL);
        f.setPacked(0, BUFFERS, 8, 1, AVAIL | NEXT | WRITE);
      },
    ],
  ];
  for (const [why, prepare] of cases) {
    test(why, () => {
      using fixture = new RingFixture({ packed: true, indirect: true });
      using ring = fixture.device();
      prepare(fixture);
      for (let again = 0; again < 2; again++) expect(() => ring.pop(new Chain())).toThrow(why);
      expect(() => ring.pop(new Chain())).toThrow(RingError);
      expect([ring.base, ring.inFlight]).toEqual([0x80008000, 0]);
    });
  }

  test("an id that is in flight already, more descriptors than the ring has", () => {
    using fixture = new RingFixture({ packed: true, size: 2 });
    using ring = fixture.device();
    fixture.setPacked(0, BUFFERS, 8, 1, AVAIL);
    fixture.setPacked(1, BUFFERS, 8, 1, AVAIL);
    expect(ring.pop(new Chain())).toBe(true);
    expect(() => ring.pop(new Chain())).toThrow("offered twice");
    fixture.setPacked(1, BUFFERS, 8, 2, AVAIL);
    expect(ring.pop(new Chain())).toBe(true);
    fixture.setPacked(0, BUFFERS, 8, 3, AVAIL_2);
    expect(() => ring.pop(new Chain())).toThrow("longer than");
  });

  test("an impossible ring", () => {
    using fixture = new RingFixture(packed);
    const attempt = (change: object) => () =>
      createDeviceRing(fixture.memory, fixture.memory, { ...fixture.layout, ...change });
    expect(attempt({ size: 32769 })).toThrow("cannot have");
    expect(attempt({ base: 9 })).toThrow("outside a packed ring");
    expect(attempt({ available: 0x2002 })).toThrow("multiple of 4");
    expect(attempt({ used: 0x100000 })).toThrow("not wholly inside");
  });
});

describe("notifications", () => {
  const serve = (fixture: RingFixture, ring: ReturnType<RingFixture["device"]>, index: number) => {
    fixture.setPacked(index, BUFFERS, 8, index, AVAIL);
    for (const chain of popAll(ring)) ring.complete(chain, 0);
    return ring.publish();
  };

  test("by flags", () => {
    using fixture = new RingFixture(packed);
    using ring = fixture.device();
    expect(serve(fixture, ring, 0)).toBe(true);
    fixture.setHalf(fixture.availableAddress + 2, 1);
    expect(serve(fixture, ring, 1)).toBe(false);
    ring.disableNotifications();
    expect(fixture.half(fixture.usedAddress + 2)).toBe(1);
    expect(ring.enableNotifications()).toBe(false);
    expect(fixture.half(fixture.usedAddress + 2)).toBe(0);
    fixture.setPacked(2, BUFFERS, 8, 2, AVAIL);
    expect(ring.enableNotifications()).toBe(true);
  });

  test("by EVENT_IDX: position and wrap counter", () => {
    using fixture = new RingFixture({ packed: true, eventIdx: true, size: 4 });
    using ring = fixture.device();
    fixture.setHalf(fixture.availableAddress + 2, 2);
    fixture.setHalf(fixture.availableAddress, 2 | 0x8000);
    expect(serve(fixture, ring, 0), "the first one after a start always does").toBe(true);
    expect(serve(fixture, ring, 1)).toBe(false);
    expect(serve(fixture, ring, 2), "position 2 of this lap").toBe(true);
    fixture.setHalf(fixture.availableAddress, 3);
    expect(serve(fixture, ring, 3), "position 3 of the next lap").toBe(false);
    expect(ring.enableNotifications()).toBe(false);
    expect([fixture.half(fixture.usedAddress), fixture.half(fixture.usedAddress + 2)]).toEqual([0, 2]);
  });
});

test("the dirty log gets the descriptor ring, the written pieces and the event area", () => {
  using fixture = new RingFixture({ packed: true, logAddress: 0x30000 });
  const fd = createMemfd("log", PAGE_BYTES);
  using view = Mapping.ofFd(fd, { sizeBytes: PAGE_BYTES });
  using dirtyLog = DirtyLog.fromFd(fd, { sizeBytes: PAGE_BYTES, offset: 0 });
  using ring = fixture.device();
  fixture.setPacked(0, BUFFERS, 0x1000, 1, WRITE | AVAIL);
  fixture.memory.dirtyLog = dirtyLog;
  const [chain] = popAll(ring);
  ring.complete(chain!, 1);
  ring.publish();
  ring.disableNotifications();
  const bits = new Uint8Array(view.window(0, PAGE_BYTES));
  const pages = Array.from({ length: 256 }, (_, page) => page);
  const dirty = pages.filter((page) => (bits[page >> 3]! & (1 << (page & 7))) !== 0);
  expect(dirty).toEqual([fixture.descriptorAddress / PAGE_BYTES, 0x30, BUFFERS / PAGE_BYTES]);
});
