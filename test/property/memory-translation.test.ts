import { expect, test } from "bun:test";
import fc from "fast-check";
import { StateError } from "../../src/errors.ts";
import { DirtyLog, GuestMemory, PAGE_BYTES, type RegionLayout } from "../../src/memory/mod.ts";
import { createMemfd, Mapping } from "../../src/sys/mod.ts";

const PAGES = 64;
const USER = 0x7f0000000000;

/** Regions in one small space, so that they often overlap, and often touch. */
const layout: fc.Arbitrary<RegionLayout> = fc
  .record({
    guest: fc.nat(PAGES - 1),
    pages: fc.integer({ min: 1, max: 12 }),
    user: fc.nat(200),
    file: fc.nat(8),
  })
  .map(({ guest, pages, user, file }) => ({
    guestAddress: guest * PAGE_BYTES,
    sizeBytes: pages * PAGE_BYTES,
    userAddress: USER + user * PAGE_BYTES,
    mmapOffset: file * PAGE_BYTES,
  }));

const operation = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant("add" as const), layout }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), which: fc.nat(10) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("table" as const), layouts: fc.array(layout, { maxLength: 4 }) }),
  },
);

function overlap(a: RegionLayout, b: RegionLayout): boolean {
  const cross = (x: number, y: number) => x < y + b.sizeBytes && y < x + a.sizeBytes;
  return cross(a.guestAddress, b.guestAddress) || cross(a.userAddress, b.userAddress);
}

function fits(layouts: readonly RegionLayout[]): boolean {
  return layouts.every((a, i) => layouts.slice(i + 1).every((b) => !overlap(a, b)));
}

function apply(
  memory: GuestMemory,
  model: RegionLayout[],
  one: typeof operation extends fc.Arbitrary<infer T> ? T : never,
): RegionLayout[] {
  const file = () => createMemfd("region", 32 * PAGE_BYTES);
  if (one.do === "remove") {
    const victim = model[one.which % Math.max(model.length, 1)];
    if (victim !== undefined) memory.removeRegion(victim);
    return model.filter((other) => other !== victim);
  }
  const next = one.do === "add" ? [...model, one.layout] : one.layouts;
  const act = () =>
    one.do === "add"
      ? memory.addRegion(one.layout, file())
      : memory.setTable(one.layouts.map((entry) => ({ layout: entry, fd: file() })));
  if (fits(next)) {
    act();
    return next;
  }
  expect(act).toThrow(StateError);
  return model;
}

test("translation agrees with a linear search, through any sequence of changes", () => {
  const probe = fc.tuple(fc.nat((PAGES + 12) * PAGE_BYTES), fc.integer({ min: 1, max: 3 * PAGE_BYTES }));
  fc.assert(
    fc.property(
      fc.array(operation, { maxLength: 12 }),
      fc.array(probe, { maxLength: 30 }),
      (operations, probes) => {
        using memory = new GuestMemory();
        let model: RegionLayout[] = [];
        for (const one of operations) model = apply(memory, model, one);
        const sorted = [...model].sort((a, b) => a.guestAddress - b.guestAddress);
        expect(memory.regions.map((region) => region.layout)).toEqual(sorted);
        for (const [address, sizeBytes] of probes) {
          const home = memory.regions.find(
            ({ layout: { guestAddress, sizeBytes: size } }) =>
              address >= guestAddress && address < guestAddress + size,
          );
          const inside = home !== undefined && address + sizeBytes <= home.guestEnd;
          const offset = address - (home?.layout.guestAddress ?? 0);
          expect(memory.nativeAddress(address, sizeBytes)).toBe(inside ? home.mapping.address + offset : -1);
          expect(memory.contiguousBytes(address)).toBe(home === undefined ? 0 : home.guestEnd - address);
          const user = home === undefined ? 0 : home.layout.userAddress + offset;
          expect(memory.userToGuest(user, sizeBytes)).toBe(inside ? address : -1);
        }
      },
    ),
    { numRuns: 300 },
  );
}, 60_000);

test("writes over any regions are read back and leave exactly their pages in the dirty log", () => {
  const writes = fc.array(fc.tuple(fc.nat(PAGES * PAGE_BYTES - 1), fc.integer({ min: 1, max: 9000 })), {
    maxLength: 8,
  });
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 8 }),
      writes,
      (cuts, places) => {
        using memory = new GuestMemory();
        // Adjacent regions of random sizes that cover the whole space.
        for (let page = 0, i = 0; page < PAGES; i++) {
          const pages = Math.min(cuts[i % cuts.length]!, PAGES - page);
          const place = { guestAddress: page * PAGE_BYTES, sizeBytes: pages * PAGE_BYTES, mmapOffset: 0 };
          memory.addRegion(
            { ...place, userAddress: USER + i * 2 ** 20 },
            createMemfd("region", place.sizeBytes),
          );
          page += pages;
        }
        const logFd = createMemfd("log", PAGE_BYTES);
        using view = Mapping.ofFd(logFd, { sizeBytes: PAGE_BYTES });
        using log = DirtyLog.fromFd(logFd, { sizeBytes: PAGES / 8, offset: 0 });
        memory.dirtyLog = log;
        const expected = new Uint8Array(PAGES * PAGE_BYTES);
        const dirty = new Set<number>();
        places.forEach(([address, length], i) => {
          const sizeBytes = Math.min(length, expected.length - address);
          const bytes = Uint8Array.from({ length: sizeBytes }, (_, k) => (i + 1) * 31 + k);
          memory.write(address, bytes);
          expected.set(bytes, address);
          for (let at = address; at < address + sizeBytes; at++) dirty.add(Math.floor(at / PAGE_BYTES));
        });
        const actual = new Uint8Array(expected.length);
        memory.read(0, actual);
        expect(Buffer.compare(actual, expected)).toBe(0);
        const bits = new Uint8Array(view.window(0, PAGES / 8));
        const marked = Array.from({ length: PAGES }, (_, page) => page).filter(
          (page) => (bits[page >> 3]! & (1 << (page & 7))) !== 0,
        );
        expect(marked).toEqual([...dirty].sort((a, b) => a - b));
      },
    ),
    { numRuns: 200 },
  );
}, 60_000);
