import { describe, expect, test } from "bun:test";
import { StateError } from "../../src/errors.ts";
import { DirtyLog, GuestMemory, PAGE_BYTES } from "../../src/memory/mod.ts";
import { createMemfd, Mapping } from "../../src/sys/mod.ts";
import { Chain, createDeviceRing } from "../../src/vring/mod.ts";
import { BUFFERS, describeChain, popAll, RingFixture } from "./ring-fixture.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

describe("a chain", () => {
  test("is taken with its pieces in order, and given back", () => {
    using fixture = new RingFixture();
    using ring = fixture.device();
    fixture.setDescriptor(5, BUFFERS, 16, NEXT, 2);
    fixture.setDescriptor(2, BUFFERS + 0x1000, 512, NEXT | WRITE, 7);
    fixture.setDescriptor(7, BUFFERS + 0x2000, 1, WRITE);
    fixture.offer(5);
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect(describeChain(chain)).toEqual([
      { address: BUFFERS, length: 16, writable: false },
      { address: BUFFERS + 0x1000, length: 512, writable: true },
      { address: BUFFERS + 0x2000, length: 1, writable: true },
    ]);
    expect([chain.head, chain.readableBytes, chain.writableBytes]).toEqual([5, 16, 513]);
    expect(chain.addresses[0]).toBe(fixture.memory.nativeAddress(BUFFERS, 16));
    expect([ring.inFlight, ring.base, ring.pop(new Chain())]).toEqual([1, 1, false]);
    ring.complete(chain, 513);
    expect(fixture.half(fixture.usedAddress + 2), "not visible before publish").toBe(0);
    expect(ring.publish()).toBe(true);
    expect(fixture.half(fixture.usedAddress + 2)).toBe(1);
    expect(fixture.half(fixture.usedAddress + 4)).toBe(5);
    expect(fixture.half(fixture.usedAddress + 8)).toBe(513);
    expect(ring.inFlight).toBe(0);
    expect(ring.publish(), "nothing new").toBe(false);
  });

  test("copies to and from its pieces, at any offset", () => {
    using fixture = new RingFixture();
    using ring = fixture.device();
    fixture.memory.write(
      BUFFERS,
      Uint8Array.from({ length: 100 }, (_, i) => i),
    );
    fixture.setDescriptor(0, BUFFERS, 3, NEXT, 1);
    fixture.setDescriptor(1, BUFFERS + 50, 50, NEXT, 2);
    fixture.setDescriptor(2, BUFFERS + 0x1000, 2, NEXT | WRITE, 3);
    fixture.setDescriptor(3, BUFFERS + 0x2000, 80, WRITE);
    fixture.offer(0);
    const chain = new Chain();
    ring.pop(chain);
    const out = new Uint8Array(4);
    expect(chain.copyFromReadable(1, out)).toBe(4);
    expect([...out]).toEqual([1, 2, 50, 51]);
    expect(chain.copyFromReadable(51, out)).toBe(2);
    expect(chain.copyFromReadable(53, out)).toBe(0);
    expect(
      chain.copyToWritable(
        1,
        Uint8Array.from({ length: 90 }, (_, i) => i + 1),
      ),
    ).toBe(81);
    const back = new Uint8Array(80);
    fixture.memory.read(BUFFERS + 0x1000, back.subarray(0, 2));
    expect([back[0], back[1]]).toEqual([0, 1]);
    fixture.memory.read(BUFFERS + 0x2000, back);
    expect([back[0], back[79]]).toEqual([2, 81]);
  });

  test("reads an indirect table, also after direct descriptors, and ignores the write flag that points to it", () => {
    using fixture = new RingFixture({ indirect: true });
    using ring = fixture.device();
    fixture.setTableEntry(0x9000, 0, BUFFERS + 0x1000, 8, NEXT, 2);
    fixture.setTableEntry(0x9000, 2, BUFFERS + 0x2000, 9, WRITE);
    fixture.setDescriptor(0, 0x9000, 48, INDIRECT | WRITE);
    fixture.setDescriptor(1, BUFFERS, 7, NEXT, 0);
    fixture.offer(1);
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect(describeChain(chain).map(({ length, writable }) => [length, writable])).toEqual([
      [7, false],
      [8, false],
      [9, true],
    ]);
  });

  test("that spans two regions is split into pieces", () => {
    using memory = new GuestMemory();
    for (const index of [0, 1]) {
      const layout = {
        guestAddress: index * 0x10000,
        sizeBytes: 0x10000,
        userAddress: 0x7f0000000000 + index * 0x100000,
        mmapOffset: 0,
      };
      memory.addRegion(layout, createMemfd(`half ${index}`, 0x10000));
    }
    const layout = { descriptor: 0x1000, available: 0x2000, used: 0x3000, size: 4, base: 0 };
    using ring = createDeviceRing(memory, memory, {
      ...layout,
      packed: false,
      eventIdx: false,
      indirect: true,
    });
    const put = (at: number, ...halves: number[]) =>
      memory.write(at, new Uint8Array(Uint16Array.from(halves).buffer));
    // The table lies across the border too.
    put(0x1000, 0xfff0, 0, 0, 0, 32, 0, INDIRECT, 0);
    put(0xfff0, 0xff00, 0, 0, 0, 0x200, 0, NEXT, 1);
    put(0x10000, 0xff80, 0, 0, 0, 0x100, 0, WRITE, 0);
    put(0x2000, 0, 1, 0);
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect(describeChain(chain)).toEqual([
      { address: 0xff00, length: 0x100, writable: false },
      { address: 0x10000, length: 0x100, writable: false },
      { address: 0xff80, length: 0x80, writable: true },
      { address: 0x10000, length: 0x80, writable: true },
    ]);
    expect([chain.readableCount, chain.readableBytes, chain.writableBytes]).toEqual([2, 0x200, 0x100]);
  });
});

describe("notifications", () => {
  test("by flags: the driver's wish is asked at each publish, ours is written", () => {
    using fixture = new RingFixture();
    using ring = fixture.device();
    fixture.setDescriptor(0, BUFFERS, 8, 0);
    const serve = () => {
      fixture.offer(0);
      for (const chain of popAll(ring)) ring.complete(chain, 0);
      return ring.publish();
    };
    expect(serve()).toBe(true);
    fixture.setHalf(fixture.availableAddress, 1);
    expect(serve()).toBe(false);
    ring.disableNotifications();
    expect(fixture.half(fixture.usedAddress)).toBe(1);
    expect(ring.enableNotifications()).toBe(false);
    expect(fixture.half(fixture.usedAddress)).toBe(0);
    fixture.offer(0);
    expect(ring.enableNotifications(), "something came meanwhile").toBe(true);
  });

  test("by EVENT_IDX: only the batch that passes used_event notifies", () => {
    using fixture = new RingFixture({ eventIdx: true });
    using ring = fixture.device();
    for (let i = 0; i < 8; i++) fixture.setDescriptor(i, BUFFERS, 8, 0);
    const usedEvent = fixture.availableAddress + 4 + 8 * 2;
    const serve = (...heads: number[]) => {
      fixture.offer(...heads);
      for (const chain of popAll(ring)) ring.complete(chain, 0);
      return ring.publish();
    };
    fixture.setHalf(usedEvent, 40000);
    expect(serve(0), "the first one after a start always does").toBe(true);
    expect(serve(1, 2)).toBe(false);
    fixture.setHalf(usedEvent, 4);
    expect(serve(3), "entry 3").toBe(false);
    expect(serve(4, 5), "entries 4 and 5").toBe(true);
    expect(ring.enableNotifications()).toBe(false);
    expect(fixture.half(fixture.usedAddress + 4 + 8 * 8), "avail_event").toBe(6);
  });
});

describe("position", () => {
  test("indices run freely over 2^16 and the ring goes on from a base", () => {
    using fixture = new RingFixture({ size: 2 });
    fixture.setHalf(fixture.availableAddress + 2, 65535);
    fixture.setHalf(fixture.usedAddress + 2, 65535);
    fixture.setDescriptor(0, BUFFERS, 8, 0);
    fixture.setDescriptor(1, BUFFERS, 8, 0);
    {
      using ring = fixture.device({ base: 65535 });
      fixture.offer(1, 0);
      const chains = popAll(ring);
      expect(chains.map((chain) => chain.head)).toEqual([1, 0]);
      for (const chain of chains) ring.complete(chain, 0);
      ring.publish();
      expect([ring.base, fixture.half(fixture.usedAddress + 2)]).toEqual([1, 1]);
    }
    using ring = fixture.device({ base: 1 });
    fixture.offer(0);
    expect(popAll(ring)).toHaveLength(1);
    expect(ring.base).toBe(2);
  });

  test("an impossible ring is refused before it starts", () => {
    using fixture = new RingFixture();
    const attempt = (change: object) => () =>
      createDeviceRing(fixture.memory, fixture.memory, { ...fixture.layout, ...change });
    for (const size of [0, 3, 65536, 1.5]) expect(attempt({ size })).toThrow("cannot have");
    expect(attempt({ size: 0 })).toThrow(StateError);
    expect(attempt({ descriptor: 0x1008 })).toThrow("multiple of 16");
    expect(attempt({ available: 0x2001 })).toThrow("multiple of 2");
    expect(attempt({ used: 0x3002 })).toThrow("multiple of 4");
    expect(attempt({ used: 0x100000 - 4 })).toThrow("not wholly inside");
    expect(attempt({ descriptor: -16 })).toThrow("multiple of 16");
  });

  test("a ring of 32768 descriptors works", () => {
    using memory = new GuestMemory();
    memory.addRegion(
      { guestAddress: 0, sizeBytes: 0x200000, userAddress: 0x7f0000000000, mmapOffset: 0 },
      createMemfd("big ring", 0x200000),
    );
    const layout = { descriptor: 0, available: 0x80000, used: 0x100000, size: 32768, base: 0 };
    using ring = createDeviceRing(memory, memory, {
      ...layout,
      packed: false,
      eventIdx: true,
      indirect: false,
    });
    const table = new Uint32Array(32768 * 4);
    for (let i = 0; i < 32768; i++) table.set([0x1f0000, 0, 1, i === 32767 ? 0 : 1 | ((i + 1) << 16)], i * 4);
    memory.write(0, new Uint8Array(table.buffer));
    memory.write(0x80000, Uint8Array.of(0, 0, 1, 0));
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect([chain.pieceCount, chain.readableBytes]).toEqual([32768, 32768]);
  });
});

test("the dirty log gets the written pieces and the used ring by its log address, while logging is on", () => {
  using fixture = new RingFixture({ logAddress: 0x30000 });
  const fd = createMemfd("log", PAGE_BYTES);
  using view = Mapping.ofFd(fd, { sizeBytes: PAGE_BYTES });
  using dirtyLog = DirtyLog.fromFd(fd, { sizeBytes: PAGE_BYTES, offset: 0 });
  const bits = new Uint8Array(view.window(0, PAGE_BYTES));
  let logging = false;
  using ring = fixture.device({ logging: () => logging });
  fixture.setDescriptor(0, BUFFERS, 0x1000, NEXT, 1);
  fixture.setDescriptor(1, BUFFERS + 0x10000, 0x8000, WRITE);
  const dirtyPages = () => {
    // The driver's own writes go through the same memory here and are none of the device's.
    fixture.memory.dirtyLog = undefined;
    fixture.offer(0);
    fixture.memory.dirtyLog = dirtyLog;
    const [chain] = popAll(ring);
    ring.complete(chain!, 5000);
    ring.publish();
    const pages = Array.from({ length: 256 }, (_, page) => page);
    return pages.filter((page) => (bits[page >> 3]! & (1 << (page & 7))) !== 0);
  };
  expect(dirtyPages()).toEqual([]);
  logging = true;
  expect(dirtyPages()).toEqual([0x30, 0x50, 0x51]);
});
