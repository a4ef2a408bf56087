import { describe, expect, test } from "bun:test";
import { GuestMemory } from "../../src/memory/mod.ts";
import { createMemfd } from "../../src/sys/mod.ts";
import { Chain, createDeviceRing, RingError } from "../../src/vring/mod.ts";
import { BUFFERS, RingFixture } from "./ring-fixture.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

describe("an invalid chain is refused before anything of it is believed", () => {
  const cases: [string, (fixture: RingFixture) => void][] = [
    [
      "has a loop",
      (f) => {
        for (const i of [0, 1]) f.setDescriptor(i, BUFFERS, 8, NEXT, 1 - i);
      },
    ],
    ["is outside the ring", (f) => f.setDescriptor(0, BUFFERS, 8, NEXT, 8)],
    ["has length 0", (f) => f.setDescriptor(0, BUFFERS, 0, 0)],
    ["points outside guest memory", (f) => f.setDescriptor(0, 0x100000 - 8, 16, 0)],
    ["points outside guest memory", (f) => f.setDescriptor(0, 2 ** 52, 16, 0)],
    ["above 2^53", (f) => f.setDescriptor(0, 2n ** 64n - 1n, 16, 0)],
    [
      "readable descriptor follows",
      (f) => {
        f.setDescriptor(0, BUFFERS, 8, NEXT | WRITE, 1);
        f.setDescriptor(1, BUFFERS, 8, 0);
      },
    ],
    ["has a next one", (f) => f.setDescriptor(0, 0x9000, 16, INDIRECT | NEXT, 1)],
    ["no multiple of 16", (f) => f.setDescriptor(0, 0x9000, 20, INDIRECT)],
    ["no multiple of 16", (f) => f.setDescriptor(0, 0x9000, 0, INDIRECT)],
    ["more than 1024", (f) => f.setDescriptor(0, 0x9000, 1025 * 16, INDIRECT)],
    ["table lies outside", (f) => f.setDescriptor(0, 0x100000 - 16, 32, INDIRECT)],
    [
      "holds another one",
      (f) => {
        f.setDescriptor(0, 0x9000, 16, INDIRECT);
        f.setTableEntry(0x9000, 0, 0x9000, 16, INDIRECT);
      },
    ],
    [
      "links outside its table",
      (f) => {
        f.setDescriptor(0, 0x9000, 16, INDIRECT);
        f.setTableEntry(0x9000, 0, BUFFERS, 16, NEXT, 1);
      },
    ],
    [
      "table has a loop",
      (f) => {
        f.setDescriptor(0, 0x9000, 16, INDIRECT);
        f.setTableEntry(0x9000, 0, BUFFERS, 16, NEXT, 0);
      },
    ],
  ];
  for (const [why, prepare] of cases) {
    test(why, () => {
      using fixture = new RingFixture({ indirect: true });
      using ring = fixture.device();
      prepare(fixture);
      fixture.offer(0);
      for (let again = 0; again < 2; again++) expect(() => ring.pop(new Chain())).toThrow(why);
      expect(() => ring.pop(new Chain())).toThrow(RingError);
      expect([ring.base, ring.inFlight]).toEqual([0, 0]);
    });
  }

  test("an indirect descriptor that was not negotiated", () => {
    using fixture = new RingFixture();
    using ring = fixture.device();
    fixture.setDescriptor(0, 0x9000, 16, INDIRECT);
    fixture.offer(0);
    expect(() => ring.pop(new Chain())).toThrow("not negotiated");
  });

  test("a chain of more than 2^32 bytes", () => {
    using memory = new GuestMemory();
    const sizeBytes = 6 * 2 ** 30;
    memory.addRegion(
      { guestAddress: 0, sizeBytes, userAddress: 0x7f0000000000, mmapOffset: 0 },
      createMemfd("large", sizeBytes),
    );
    const layout = { descriptor: 0x1000, available: 0x2000, used: 0x3000, size: 4, base: 0 };
    using ring = createDeviceRing(memory, memory, {
      ...layout,
      packed: false,
      eventIdx: false,
      indirect: false,
    });
    const put = (at: number, ...words: number[]) =>
      memory.write(at, new Uint8Array(Uint32Array.from(words).buffer));
    put(0x1000, 0, 0, 0xffffffff, NEXT | (1 << 16), 0, 0, 1, NEXT | (2 << 16), 0, 0, 1, 0);
    put(0x2000, 1 << 16, 0);
    expect(() => ring.pop(new Chain())).toThrow("longer than 2^32");
    put(0x1010, 0, 0, 1, 0);
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect(chain.readableBytes).toBe(2 ** 32);
  });

  test("a head outside the ring, one offered twice, an index too far ahead", () => {
    using fixture = new RingFixture();
    using ring = fixture.device();
    fixture.setDescriptor(3, BUFFERS, 8, 0);
    fixture.offer(3, 3);
    const chain = new Chain();
    expect(ring.pop(chain)).toBe(true);
    expect(() => ring.pop(new Chain())).toThrow("offered twice");
    ring.complete(chain, 0);
    expect(ring.pop(chain), "given back, it may come again").toBe(true);
    fixture.offer(8);
    expect(() => ring.pop(new Chain())).toThrow("outside the ring");
    using other = fixture.device({ base: 60000 });
    expect(() => other.pop(new Chain())).toThrow("ahead");
  });
});
