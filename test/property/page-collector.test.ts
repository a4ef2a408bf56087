import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { PageCollector } from "../../migrate/qemu/page-collector.ts";
import { SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";

const PAGE = 4096;
const BLOCKS = [
  { name: "ram", sizeBytes: 40 * PAGE },
  { name: "rom", sizeBytes: 3 * PAGE },
];
// Runs of pages in any order, with pages that come again: fill 0 is a page of zeros.
const run = fc.record({
  block: fc.nat(1),
  from: fc.nat(39),
  count: fc.integer({ min: 1, max: 30 }),
  fill: fc.nat(3),
});

test("whatever order the pages come in, the snapshot holds the last content of each", async () => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-col-"));
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(run, { maxLength: 12 }), async (runs) => {
        const expected = BLOCKS.map(({ sizeBytes }) => new Uint8Array(sizeBytes));
        const path = join(dir, "s.vhu");
        using writer = SnapshotWriter.toFile(path, { writer: { name: "test", version: "0" } });
        const collector = new PageCollector(writer);
        collector.blocks(BLOCKS);
        for (const { block, from, count, fill } of runs) {
          const memory = expected[block]!;
          for (let page = from; page < from + count && (page + 1) * PAGE <= memory.length; page += 1) {
            memory.fill(fill, page * PAGE, (page + 1) * PAGE);
            if (fill === 0) collector.zeroPage(block, page * PAGE);
            else collector.page(block, page * PAGE, new Uint8Array(PAGE).fill(fill));
          }
        }
        await collector.finish();
        writer.writeManifest({ devices: [], memory: { totalBytes: collector.totalBytes } });
        writer.finish();
        using reader = SnapshotReader.open(path);
        for (const { id, name, sizeBytes } of reader.memoryMap) {
          const memory = new Uint8Array(sizeBytes).fill(0xee);
          for (const piece of reader.memory(id)) {
            if ("bytes" in piece) memory.set(piece.bytes, piece.offset);
            else memory.fill(0, piece.offset, piece.offset + piece.sizeBytes);
          }
          expect(name).toBe(BLOCKS[id]!.name);
          expect(Buffer.compare(memory, expected[id]!)).toBe(0);
        }
      }),
      { numRuns: 60 },
    );
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
