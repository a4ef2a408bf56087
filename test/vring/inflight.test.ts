import { describe, expect, test } from "bun:test";
import { StateError } from "../../src/errors.ts";
import { createMemfd, type Fd, Mapping } from "../../src/sys/mod.ts";
import { Chain, InflightRegion, type InflightShape } from "../../src/vring/mod.ts";
import { cutOff } from "./cut-off.ts";
import { BUFFERS, popAll, RingFixture } from "./ring-fixture.ts";

const piece = { guestAddress: BUFFERS, sizeBytes: 16, writable: true };

/** The region of one device, opened once for every life of its back-end. */
class Region implements Disposable {
  readonly #fd: Fd;
  readonly #place: { sizeBytes: number; mmapOffset: number };

  constructor(readonly shape: InflightShape) {
    const { fd, ...place } = InflightRegion.create(shape);
    this.#fd = fd;
    this.#place = place;
  }

  open(): InflightRegion {
    return InflightRegion.open(this.#fd.duplicate(), { ...this.#place, ...this.shape });
  }

  get bytes(): Uint8Array {
    this.#view ??= Mapping.ofFd(this.#fd, { sizeBytes: this.#place.sizeBytes });
    return new Uint8Array(this.#view.window(0, this.#place.sizeBytes));
  }

  get sizeBytes(): number {
    return this.#place.sizeBytes;
  }

  #view: Mapping | undefined;

  [Symbol.dispose](): void {
    this.#view?.[Symbol.dispose]();
    this.#fd[Symbol.dispose]();
  }
}

describe("region", () => {
  test("has the spec's sizes, each queue at a multiple of 64", () => {
    using split = new Region({ numQueues: 3, queueSize: 5, packed: false });
    expect(split.sizeBytes).toBe(3 * 128);
    using packed = new Region({ numQueues: 2, queueSize: 4, packed: true });
    expect(packed.sizeBytes).toBe(2 * 192);
    expect(() => InflightRegion.create({ numQueues: 0, queueSize: 4, packed: true })).toThrow(StateError);
    expect(() => InflightRegion.create({ numQueues: 1, queueSize: 65536, packed: true })).toThrow(StateError);
    using region = split.open();
    expect(() => region.queue(3)).toThrow(StateError);
  });

  test("is refused when it is too small or longer than its file", () => {
    const shape = { numQueues: 1, queueSize: 256, packed: false };
    const open = (place: { sizeBytes: number; mmapOffset: number }) =>
      InflightRegion.open(createMemfd("inflight", 4096), { ...shape, ...place });
    expect(() => open({ sizeBytes: 4096, mmapOffset: 0 })).toThrow("are needed");
    expect(() => open({ sizeBytes: 8192, mmapOffset: 0 })).toThrow("are needed");
    expect(() => open({ sizeBytes: 8192, mmapOffset: -4096 })).toThrow(StateError);
  });

  test("of the other layout, of another size or version does not fit a ring", () => {
    using fixture = new RingFixture();
    using packed = new Region({ numQueues: 1, queueSize: 8, packed: true });
    using split = new Region({ numQueues: 1, queueSize: 8, packed: false });
    using small = new Region({ numQueues: 1, queueSize: 4, packed: false });
    using opened = packed.open();
    expect(() => fixture.device({ inflight: opened.queue(0) })).toThrow("layout");
    using smallOpened = small.open();
    expect(() => fixture.device({ inflight: smallOpened.queue(0) })).toThrow("4 entries");
    split.bytes[8] = 2;
    using splitOpened = split.open();
    expect(() => fixture.device({ inflight: splitOpened.queue(0) })).toThrow("version 2");
  });
});

describe("split", () => {
  test("records heads and counters where the spec says, and resubmits in the order of the counters", () => {
    using fixture = new RingFixture();
    using region = new Region({ numQueues: 1, queueSize: 8, packed: false });
    using driver = fixture.driver();
    {
      using opened = region.open();
      using ring = fixture.device({ inflight: opened.queue(0) });
      for (let i = 0; i < 4; i++) driver.add([piece], i);
      const [first, second] = popAll(ring);
      ring.complete(second!, 0);
      ring.publish();
      ring.complete(first!, 0);
      ring.publish();
      driver.popUsed();
      driver.popUsed();
      driver.add([piece], 4);
      expect(ring.pop(new Chain())).toBe(true);
      const halves = new Uint16Array(region.bytes.buffer);
      expect([...halves.subarray(4, 8)], "version, desc_num, last_batch_head, used_idx").toEqual([
        1, 8, 0, 2,
      ]);
      const inflight = Array.from({ length: 8 }, (_, i) => region.bytes[16 + i * 16]);
      expect(inflight).toEqual([1, 0, 1, 1, 0, 0, 0, 0]);
      expect(region.bytes[16 + 8], "the counter of head 0, used a second time").toBe(4);
    }
    using opened = region.open();
    using ring = fixture.device({ inflight: opened.queue(0), base: fixture.half(fixture.usedAddress + 2) });
    expect([ring.toResubmit, ring.base]).toEqual([3, 5]);
    expect(ring.enableNotifications()).toBe(true);
    const chains = popAll(ring);
    expect(chains.map((chain) => chain.head)).toEqual([2, 3, 0]);
    for (const chain of chains) ring.complete(chain, 0);
    ring.publish();
    expect([driver.popUsed(), driver.popUsed(), driver.popUsed()].map((used) => used?.token)).toEqual([
      2, 3, 4,
    ]);
  });

  test("a crash after the used index was stored clears the whole last batch", () => {
    using fixture = new RingFixture();
    using region = new Region({ numQueues: 1, queueSize: 8, packed: false });
    using driver = fixture.driver();
    {
      using opened = region.open();
      using ring = fixture.device({ inflight: opened.queue(0) });
      for (let i = 0; i < 5; i++) driver.add([piece], i);
      const chains = popAll(ring);
      for (const i of [3, 0, 2]) ring.complete(chains[i]!, 0);
      // What publish does first; the process dies before it does the rest.
      fixture.setHalf(fixture.usedAddress + 2, 3);
    }
    using opened = region.open();
    using ring = fixture.device({ inflight: opened.queue(0), base: 3 });
    expect(popAll(ring).map((chain) => chain.head)).toEqual([1, 4]);
    expect(ring.base).toBe(5);
  });

  test("with nothing in flight the front-end's base holds", () => {
    using fixture = new RingFixture();
    using region = new Region({ numQueues: 1, queueSize: 8, packed: false });
    {
      using opened = region.open();
      using ring = fixture.device({ inflight: opened.queue(0), base: 7 });
      expect([ring.base, ring.toResubmit]).toEqual([7, 0]);
    }
    using opened = region.open();
    // The front-end reset the ring and kept the region: the used index is behind the recorded one.
    new Uint16Array(region.bytes.buffer)[7] = 40;
    using ring = fixture.device({ inflight: opened.queue(0), base: 0 });
    expect([ring.base, ring.toResubmit]).toEqual([0, 0]);
  });

  test("a region that contradicts the ring is refused", () => {
    using fixture = new RingFixture();
    using region = new Region({ numQueues: 1, queueSize: 8, packed: false });
    using opened = region.open();
    fixture.device({ inflight: opened.queue(0) })[Symbol.dispose]();
    region.bytes[16] = 1;
    const halves = new Uint16Array(region.bytes.buffer);
    halves[7] = 100;
    expect(() => fixture.device({ inflight: opened.queue(0) })).toThrow("ahead");
    halves[7] = 0xffff;
    halves[6] = 9;
    expect(() => fixture.device({ inflight: opened.queue(0) })).toThrow("names head 9");
  });
});

describe("packed", () => {
  test("keeps the descriptors, which completions overwrite, and resubmits them in order", () => {
    using fixture = new RingFixture({ packed: true, size: 4 });
    using region = new Region({ numQueues: 2, queueSize: 4, packed: true });
    using driver = fixture.driver();
    const readable = { guestAddress: BUFFERS + 0x1000, sizeBytes: 8, writable: false };
    {
      using opened = region.open();
      using ring = fixture.device({ inflight: opened.queue(1) });
      driver.add([readable, piece], 0);
      driver.add([piece], 1);
      driver.add([piece], 2);
      const chains = popAll(ring);
      ring.complete(chains[2]!, 5);
      ring.publish();
      expect(driver.popUsed()?.token).toBe(2);
      ring.complete(chains[1]!, 6);
      ring.publish();
      expect(driver.popUsed()?.token).toBe(1);
      driver.add([{ ...piece, guestAddress: BUFFERS + 0x5000 }], 3);
    }
    using opened = region.open();
    // QEMU has no used index of a packed ring to read, and sends the base of the start.
    using ring = fixture.device({ inflight: opened.queue(1) });
    expect([ring.toResubmit, ring.base]).toEqual([1, 0x80020000]);
    const [first, second] = popAll(ring);
    expect([...first!.guestAddresses.subarray(0, 2)]).toEqual([BUFFERS + 0x1000, BUFFERS]);
    expect([...first!.lengths.subarray(0, 2), first!.readableCount]).toEqual([8, 16, 1]);
    expect(second!.guestAddresses[0]).toBe(BUFFERS + 0x5000);
    ring.complete(first!, 1);
    ring.complete(second!, 2);
    ring.publish();
    expect([driver.popUsed(), driver.popUsed()]).toEqual([
      { token: 0, writtenBytes: 1 },
      { token: 3, writtenBytes: 2 },
    ]);
  });

  test("a batch that is cut off at any store is visible as a whole or comes again as a whole", () => {
    for (let stores = 0; stores < 16; stores++) {
      using fixture = new RingFixture({ packed: true, size: 4 });
      using region = new Region({ numQueues: 1, queueSize: 4, packed: true });
      using driver = fixture.driver();
      {
        using opened = region.open();
        using ring = fixture.device({ inflight: opened.queue(0) });
        for (let i = 0; i < 3; i++) driver.add([piece], i);
        for (const chain of popAll(ring)) ring.complete(chain, 1);
        cutOff(stores, () => void ring.publish());
      }
      using opened = region.open();
      using ring = fixture.device({ inflight: opened.queue(0) });
      const published = ring.toResubmit === 0;
      if (!published) {
        expect([ring.toResubmit, driver.popUsed()]).toEqual([3, undefined]);
        // Only the first is answered: the other two must not look answered, although the cut-off batch wrote them.
        const chain = new Chain();
        ring.pop(chain);
        ring.complete(chain, 1);
        ring.publish();
      }
      const tokens = [0, 1, 2].map(() => driver.popUsed()?.token);
      expect(tokens).toEqual(published ? [0, 1, 2] : [0, undefined, undefined]);
    }
  });

  test("a region that contradicts itself is refused", () => {
    using fixture = new RingFixture({ packed: true, size: 4 });
    using region = new Region({ numQueues: 1, queueSize: 4, packed: true });
    using opened = region.open();
    fixture.device({ inflight: opened.queue(0) })[Symbol.dispose]();
    const halves = new Uint16Array(region.bytes.buffer);
    const attempt = () => fixture.device({ inflight: opened.queue(0) });
    const good = halves.slice();
    const entry = (index: number) => 16 + index * 16;
    halves[entry(3) + 1] = 0;
    expect(attempt).toThrow("loop");
    halves.set(good);
    halves[9] = 4;
    expect(attempt).toThrow("used position");
    halves.set(good);
    halves[7] = 2;
    region.bytes[32] = 1;
    halves[entry(0) + 3] = 9;
    expect(attempt).toThrow("9 descriptors");
    halves.set(good);
    halves[7] = 4;
    for (const index of [0, 1]) {
      region.bytes[32 + index * 32] = 1;
      halves[entry(index) + 3] = 3;
    }
    expect(attempt).toThrow("6 descriptors");
    halves.set(good);
    attempt()[Symbol.dispose]();
  });
});
