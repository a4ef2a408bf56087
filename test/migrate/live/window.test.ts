import { expect, test } from "bun:test";
import fc from "fast-check";
import { decodeWindow, encodeWindowHead, type WindowRun } from "../../../migrate/live/memory-window.ts";
import { ReceivedMemory } from "../../../migrate/live/received-memory.ts";
import { WindowPacker } from "../../../migrate/live/window-packer.ts";
import { FormatError } from "../../../src/errors.ts";
import { createMemfd, dataRanges, type Fd, Mapping, punchHole } from "../../../src/sys/mod.ts";

const PAGE = 4096;
const REGION_BYTES = 3 << 20;
const region = { id: 7, guestAddress: 0, sizeBytes: REGION_BYTES, name: "ram" };

function contentOf(fd: Fd, sizeBytes = REGION_BYTES): Uint8Array {
  using mapping = Mapping.ofFd(fd, { sizeBytes, readOnly: true });
  return new Uint8Array(mapping.window(0, sizeBytes)).slice();
}

/** One change of a page: nothing, all of it, a few bytes, the content of another, or zeros. */
const change = fc.record({
  page: fc.nat(REGION_BYTES / PAGE - 1),
  kind: fc.constantFrom("fill", "poke", "copy", "zero"),
  value: fc.integer({ min: 1, max: 255 }),
  from: fc.nat(REGION_BYTES / PAGE - 1),
});

function applyChange(
  memory: Uint8Array,
  { page, kind, value, from }: { page: number; kind: string; value: number; from: number },
) {
  const target = memory.subarray(page * PAGE, (page + 1) * PAGE);
  if (kind === "fill") for (let i = 0; i < PAGE; i++) target[i] = (i * value + (i >> 8)) & 0xff;
  else if (kind === "poke") target[value * 7] = value;
  else if (kind === "copy") target.set(memory.subarray(from * PAGE, (from + 1) * PAGE));
  else target.fill(0);
}

test("memory that changes between the passes arrives as it is, whatever the runs", () => {
  const passes = fc.array(fc.array(change, { maxLength: 200 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(
      passes,
      fc.constantFrom(undefined, 1, 3),
      fc.constantFrom(4 * PAGE, 4 << 20),
      (changes, level, cacheBytes) => {
        using fd = createMemfd("test", REGION_BYTES);
        const memory = new Uint8Array(REGION_BYTES);
        const packer = new WindowPacker(cacheBytes);
        const received = new ReceivedMemory([region], () => fd);
        const room = new Uint8Array(2 << 20);
        for (const [passNumber, list] of changes.entries()) {
          for (const each of list) applyChange(memory, each);
          const touched = new Set(
            passNumber === 0 ? [0, 1, 2] : list.map(({ page }) => Math.floor((page * PAGE) / (1 << 20))),
          );
          for (const index of touched) {
            const offset = index << 20;
            const size = packer.pack(
              memory.slice(offset, offset + (1 << 20)),
              { regionId: 7, offset, passNumber, level },
              room,
            );
            received.apply(room.subarray(0, size));
          }
          expect(Buffer.compare(contentOf(fd), memory)).toBe(0);
        }
      },
    ),
    { numRuns: 25 },
  );
});

test("equal pages are sent once, and pages that changed a little as what differs", () => {
  const packer = new WindowPacker(1 << 20);
  const room = new Uint8Array(2 << 20);
  const page = crypto.getRandomValues(new Uint8Array(PAGE));
  const window = new Uint8Array(4 * PAGE);
  for (let i = 0; i < 4; i++) window.set(page, i * PAGE);
  const pack = (bytes: Uint8Array, passNumber: number) =>
    packer.pack(bytes.slice(), { regionId: 7, offset: 0, passNumber, level: 1 }, room);
  expect(pack(window, 0)).toBeLessThan(1.1 * PAGE);
  expect(pack(page, 1)).toBeGreaterThan(PAGE);
  page[100] = 1;
  expect(pack(page, 2)).toBeLessThan(100);
});

const runArbitrary = fc.oneof(
  fc.record({
    kind: fc.constantFrom("zero" as const, "data" as const, "delta" as const),
    pages: fc.integer({ min: 1, max: 40 }),
  }),
  fc.record({
    kind: fc.constant("duplicate" as const),
    pages: fc.integer({ min: 1, max: 40 }),
    sourceRegionId: fc.nat(0xffff_ffff),
    sourceOffset: fc.nat(2 ** 40).map((page) => page * PAGE),
  }),
);

/** Each where the last one ends, or elsewhere. */
const runsArbitrary = fc
  .array(fc.tuple(runArbitrary, fc.option(fc.nat(2 ** 40))), { minLength: 1, maxLength: 6 })
  .map((list) => {
    let next = 8 * PAGE;
    return list.map(([run, page]) => {
      const offset = page === null ? next : page * PAGE;
      next = offset + run.pages * PAGE;
      return { ...run, offset };
    });
  });

test("a window's head is read as it was written", () => {
  fc.assert(
    fc.property(runsArbitrary, fc.bigInt(0n, 2n ** 64n - 1n), (runs, checksum) => {
      const plainBytes = runs.reduce(
        (sum, { kind, pages }) => sum + (kind === "data" || kind === "delta" ? pages * PAGE : 0),
        0,
      );
      const room = new Uint8Array(2 << 20);
      const window = {
        regionId: 3,
        runs: runs as WindowRun[],
        codec: "plain" as const,
        plainBytes,
        checksum,
      };
      const head = encodeWindowHead(room, window);
      const { frame, ...decoded } = decodeWindow(room.subarray(0, head + plainBytes));
      expect(decoded).toEqual(window);
      expect(frame.length).toBe(plainBytes);
    }),
  );
});

test("damage anywhere in a window is found, and nothing of it gets into the memory", () => {
  const packer = new WindowPacker(1 << 20);
  const room = new Uint8Array(2 << 20);
  const window = new Uint8Array(64 * PAGE);
  for (let i = 0; i < 20 * PAGE; i++) window[i] = (i * 31) >> 3;
  const size = packer.pack(window, { regionId: 7, offset: 0, passNumber: 0, level: 1 }, room);
  using fd = createMemfd("test", REGION_BYTES);
  const received = new ReceivedMemory([region], () => fd);
  for (let at = 0; at < size; at += 1 + (at >> 3)) {
    const bytes = room.slice(0, size);
    bytes[at] = (bytes[at] as number) ^ 0x10;
    // Its place is not part of the checksum: the frame's checksum covers it.
    if (at >= 8 && at < 16) continue;
    try {
      received.apply(bytes);
    } catch (error) {
      expect(error).toBeInstanceOf(FormatError);
      expect([...dataRanges(fd, REGION_BYTES)]).toEqual([]);
      continue;
    }
    // zstd has bits that mean nothing.
    expect(Buffer.compare(contentOf(fd, window.length), window)).toBe(0);
    punchHole(fd, 0, REGION_BYTES);
  }
});

test("a window beside the memory, or of a region that is not there, is refused", () => {
  using fd = createMemfd("test", REGION_BYTES);
  const received = new ReceivedMemory([region], () => fd);
  const room = new Uint8Array(2 << 20);
  for (const [regionId, offset] of [
    [7, REGION_BYTES],
    [7, REGION_BYTES - PAGE],
    [8, 0],
  ] as const) {
    const packer = new WindowPacker(1 << 20);
    const size = packer.pack(
      new Uint8Array(2 * PAGE).fill(1),
      { regionId, offset, passNumber: 0, level: 1 },
      room,
    );
    expect(() => received.apply(room.subarray(0, size))).toThrow(/not in memory region|no memory region/);
  }
});
