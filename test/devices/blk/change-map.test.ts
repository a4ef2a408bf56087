import { expect, test } from "bun:test";
import fc from "fast-check";
import { ChangeMap } from "../../../devices/blk/change-map.ts";

const KiB = 1024;
const PART = 64 * KiB;

test("what was written is told once, by parts, and nothing while it is off", () => {
  const map = new ChangeMap(10 * PART + 512);
  map.mark(0, 512);
  map.start();
  expect(map.take()).toEqual([]);
  map.mark(PART - 1, 2);
  map.mark(5 * PART, 1);
  map.mark(10 * PART, 512);
  map.mark(7 * PART, 0);
  expect(map.take()).toEqual([
    { offset: 0, sizeBytes: 2 * PART },
    { offset: 5 * PART, sizeBytes: PART },
    { offset: 10 * PART, sizeBytes: 512 },
  ]);
  expect(map.take()).toEqual([]);
  map.mark(0, 1);
  map.stop();
  map.mark(PART, 1);
  map.start();
  expect(map.take()).toEqual([]);
});

test("another thread's map is the same one", () => {
  const map = new ChangeMap(100 * PART);
  const other = new ChangeMap(100 * PART, map.buffer);
  map.start();
  other.mark(40 * PART, PART);
  expect(map.take()).toEqual([{ offset: 40 * PART, sizeBytes: PART }]);
});

test("a write beyond the capacity of the start is noticed", () => {
  const map = new ChangeMap(64 * PART);
  map.start();
  map.mark(1000 * PART, 1);
  expect(map.take()).toBeUndefined();
  // In the part that the old end lies in, too.
  const odd = new ChangeMap(PART + 512);
  odd.start();
  odd.mark(PART + 512, 512);
  expect(odd.take()).toBeUndefined();
});

test("every byte that was written is in a range; there are 4096 at most; a large disk has larger parts", () => {
  const capacity = 3 * 2 ** 40;
  const map = new ChangeMap(capacity);
  const write = fc.record({
    offset: fc.nat({ max: 2 ** 30 }),
    sizeBytes: fc.integer({ min: 1, max: 300 * KiB }),
  });
  fc.assert(
    fc.property(fc.array(write), (writes) => {
      map.start();
      for (const { offset, sizeBytes } of writes) map.mark(offset * 2048, sizeBytes);
      const ranges = map.take()!;
      for (const { offset, sizeBytes } of writes) {
        const [from, to] = [offset * 2048, offset * 2048 + sizeBytes];
        expect(ranges.some((range) => range.offset <= from && range.offset + range.sizeBytes >= to)).toBe(
          true,
        );
      }
    }),
    { numRuns: 10 },
  );
  map.start();
  for (let part = 0; part < 10_000; part++) map.mark(part * 4 * PART, 1);
  const ranges = map.take()!;
  expect(ranges.length).toBeLessThanOrEqual(4096);
  expect(ranges.at(-1)!.offset + ranges.at(-1)!.sizeBytes).toBeGreaterThan(9_999 * 4 * PART);
});
