/** Writes a snapshot of a machine with SIZE bytes of memory: runs of zeros, text-like and random pages, by a seed. `… FILE SIZE` */
import { randomFillSync } from "node:crypto";
import { SnapshotWriter } from "../../../migrate/snapshot/mod.ts";

const PIECE_BYTES = 8 * 1024 * 1024;
const PAGE_BYTES = 4096;
const MAX_RUN_PAGES = 512;

let state = 20261123;
const random = (below: number): number => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
};

/** A third each of zero pages, pages that compress to about a quarter, and pages that do not. */
function fill(piece: Uint8Array): void {
  for (let at = 0; at < piece.length; ) {
    const run = piece.subarray(at, at + (1 + random(MAX_RUN_PAGES)) * PAGE_BYTES);
    const kind = random(3);
    if (kind === 0) run.fill(0);
    else randomFillSync(run);
    if (kind === 1) for (let i = 0; i < run.length; i++) if (i % 16 >= 4) run[i] = i % 16;
    at += run.length;
  }
}

const [path, size] = process.argv.slice(2) as [string, string];
const sizeBytes = Number(size);
using writer = SnapshotWriter.toFile(path, {
  writer: { name: "vhu", version: "0.1.0" },
  runState: "running",
});
writer.writeMemoryMap([{ id: 0, name: "ram", guestAddress: 0, sizeBytes, userAddress: 0x7f0000000000 }]);
const piece = new Uint8Array(PIECE_BYTES);
for (let at = 0; at < sizeBytes; at += piece.length) {
  fill(piece);
  await writer.writeMemory(0, at, piece);
}
writer.writeManifest({ devices: [], memory: { totalBytes: sizeBytes } });
console.log(JSON.stringify(writer.finish().stats));
