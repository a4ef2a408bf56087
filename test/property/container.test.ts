import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import type { Extent } from "../../migrate/snapshot/extent.ts";
import { livingExtents } from "../../migrate/snapshot/living-extents.ts";
import { MEMORY_PAGE_BYTES, SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { zeroRuns } from "../../migrate/snapshot/zero-runs.ts";

const PAGES = 64;
const range = fc
  .tuple(fc.integer({ min: 0, max: PAGES - 1 }), fc.integer({ min: 1, max: PAGES }))
  .map(([from, count]) => ({ from, count: Math.min(count, PAGES - from) }));
/** Ranges of one pass: those that overlap an earlier one are left out. */
const pass = fc.array(range, { maxLength: 8 }).map((ranges) => {
  const taken = new Set<number>();
  return ranges.filter(({ from, count }) => {
    const wanted = Array.from({ length: count }, (_, index) => from + index);
    if (wanted.some((page) => taken.has(page))) return false;
    for (const page of wanted) taken.add(page);
    return true;
  });
});
const passes = fc.array(pass, { maxLength: 5 });
const neverOverlaps = (): never => {
  throw new Error("they overlap");
};

test("living extents are what a page-by-page model says", () => {
  fc.assert(
    fc.property(passes, fc.boolean(), (list, isReversed) => {
      const model = new Map<number, string>();
      const extents: Extent[] = [];
      for (const [passNumber, ranges] of list.entries()) {
        for (const { from, count } of ranges) {
          const frame = { offset: extents.length, sizeBytes: 1, plainBytes: count, checksum: 0n };
          extents.push({
            regionId: 0,
            passNumber,
            offset: from,
            sizeBytes: count,
            kind: "data",
            frame,
            skipBytes: 0,
          });
          for (let page = 0; page < count; page += 1) model.set(from + page, `${frame.offset}+${page}`);
        }
      }
      const living = livingExtents(isReversed ? extents.reverse() : extents, neverOverlaps);
      const found = new Map<number, string>();
      let last = -1;
      for (const { offset, sizeBytes, frame, skipBytes } of living) {
        expect(offset).toBeGreaterThanOrEqual(last);
        last = offset + sizeBytes;
        for (let page = 0; page < sizeBytes; page += 1)
          found.set(offset + page, `${frame?.offset}+${skipBytes + page}`);
      }
      expect([...found].sort(([a], [b]) => a - b)).toEqual([...model].sort(([a], [b]) => a - b));
    }),
    { numRuns: 1000 },
  );
});

test("zero runs cover all pages, in order, and say the truth", () => {
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { minLength: 1, maxLength: 100 }),
      fc.integer({ min: 0, max: 3 }),
      (zeros, shift) => {
        const bytes = new Uint8Array(zeros.length * MEMORY_PAGE_BYTES + 4).subarray(
          shift,
          -4 + shift || undefined,
        );
        const pages = bytes.subarray(0, zeros.length * MEMORY_PAGE_BYTES);
        for (const [index, isZero] of zeros.entries()) {
          if (!isZero) pages[index * MEMORY_PAGE_BYTES + ((index * 997) % MEMORY_PAGE_BYTES)] = 1;
        }
        let position = 0;
        for (const run of zeroRuns(pages)) {
          expect(run.offset).toBe(position);
          const inside = zeros.slice(
            run.offset / MEMORY_PAGE_BYTES,
            (run.offset + run.sizeBytes) / MEMORY_PAGE_BYTES,
          );
          if (run.isZero) expect(inside.every(Boolean)).toBe(true);
          position += run.sizeBytes;
        }
        expect(position).toBe(pages.length);
      },
    ),
  );
});

test("memory comes back, whatever is written in how many passes", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-container-"));
  const path = join(folder, "a.vhu");
  const content = fc.record({
    passes,
    seed: fc.nat(),
    states: fc.array(fc.uint8Array({ maxLength: 2000 }), { maxLength: 3 }),
  });
  try {
    await fc.assert(
      fc.asyncProperty(content, async ({ passes: list, seed, states }) => {
        const memory = new Uint8Array(PAGES * MEMORY_PAGE_BYTES);
        const sizeBytes = memory.length;
        {
          using writer = SnapshotWriter.toFile(path, { writer: { name: "vhu", version: "0" } });
          writer.writeMemoryMap([{ id: 3, guestAddress: 0, sizeBytes, name: "ram" }]);
          writer.writeHole(3, 0, sizeBytes);
          for (const [passNumber, ranges] of list.entries()) {
            writer.nextMemoryPass();
            for (const { from, count } of ranges) {
              // Few different contents, so that some are duplicates and some are zero.
              const fill = (seed + from * passNumber) % 4;
              memory.fill(fill, from * MEMORY_PAGE_BYTES, (from + count) * MEMORY_PAGE_BYTES);
              const offset = from * MEMORY_PAGE_BYTES;
              await writer.writeMemory(
                3,
                offset,
                memory.subarray(offset, offset + count * MEMORY_PAGE_BYTES),
              );
            }
          }
          for (const [deviceId, bytes] of states.entries()) {
            const state = writer.writeDeviceState(deviceId);
            state.write(bytes);
            state.finish();
          }
          writer.writeManifest({ devices: [], memory: { totalBytes: sizeBytes } });
          writer.finish();
        }
        using reader = SnapshotReader.open(path);
        const found = new Uint8Array(sizeBytes).fill(0xee);
        for (const piece of reader.memory(3)) {
          if ("bytes" in piece) found.set(piece.bytes, piece.offset);
          else found.fill(0, piece.offset, piece.offset + piece.sizeBytes);
        }
        expect(Buffer.compare(found, memory)).toBe(0);
        for (const [deviceId, bytes] of states.entries()) {
          expect(Buffer.compare(Buffer.concat([...reader.deviceState(deviceId)]), bytes)).toBe(0);
        }
        expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
      }),
      { numRuns: 150 },
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
