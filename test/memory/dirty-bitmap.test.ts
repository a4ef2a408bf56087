import { expect, test } from "bun:test";
import fc from "fast-check";
import { DirtyBitmap, DirtyLog, PAGE_BYTES, PageSet } from "../../src/memory/mod.ts";

const runsOf = (set: PageSet) =>
  [...set.runs()].map(({ offset, sizeBytes }) => [offset / PAGE_BYTES, sizeBytes / PAGE_BYTES]);

test("a dirty bitmap gives what was marked in it, by whom ever, once", () => {
  using bitmap = new DirtyBitmap(1000 * PAGE_BYTES + 5);
  // A back-end's view of it.
  using theirs = DirtyLog.fromFd(bitmap.fd.duplicate(), { sizeBytes: bitmap.sizeBytes, offset: 0 });
  expect(bitmap.take().size).toBe(0);
  theirs.mark(31 * PAGE_BYTES, 2 * PAGE_BYTES);
  bitmap.ownLog.mark(1000 * PAGE_BYTES + 4, 1);
  bitmap.ownLog.mark(0, 1);
  expect(runsOf(bitmap.take())).toEqual([
    [0, 1],
    [31, 2],
    [1000, 1],
  ]);
  expect(bitmap.take().size).toBe(0);
});

test("a set of pages is what a list of pages says", () => {
  const ranges = fc.array(fc.record({ from: fc.nat(200), count: fc.integer({ min: 1, max: 70 }) }));
  fc.assert(
    fc.property(ranges, ranges, fc.integer({ min: 1, max: 200 }), (first, second, pageCount) => {
      const [set, other] = [new PageSet(pageCount * PAGE_BYTES), new PageSet(pageCount * PAGE_BYTES)];
      const model = new Set<number>();
      for (const [target, list] of [
        [set, first],
        [other, second],
      ] as const) {
        for (const { from, count } of list) {
          target.add(from * PAGE_BYTES + 1, count * PAGE_BYTES - 1);
          for (let page = from; page < Math.min(from + count, pageCount); page += 1) model.add(page);
        }
      }
      set.addAll(other);
      const found = runsOf(set).flatMap(([from, count]) =>
        Array.from({ length: count! }, (_, i) => from! + i),
      );
      expect(found).toEqual([...model].sort((a, b) => a - b));
      expect(set.size).toBe(model.size);
      for (let page = 0; page < pageCount; page += 1) expect(set.has(page)).toBe(model.has(page));
      expect(runsOf(PageSet.of(set.memoryBytes, set.bytes))).toEqual(runsOf(set));
    }),
  );
});

test("bits beyond the memory are dropped", () => {
  const set = PageSet.of(5 * PAGE_BYTES, new Uint8Array(100).fill(255));
  expect([set.size, runsOf(set)]).toEqual([5, [[0, 5]]]);
});
