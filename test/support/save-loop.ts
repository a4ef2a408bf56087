/** Saves over and over to FILE until it is killed: `… FILE`. Says "saving" once the first save begins, then for each how long it took, in ms. */
import { SnapshotWriter } from "../../migrate/snapshot/mod.ts";

const [path] = process.argv.slice(2) as [string];
const sizeBytes = 4 << 20;
const memory = new Uint8Array(sizeBytes);
for (let at = 0; at < sizeBytes; at += 64) memory[at] = at / 64;
console.log("saving");
for (let round = 0; ; round += 1) {
  const startMs = performance.now();
  using writer = SnapshotWriter.toFile(path, {
    writer: { name: "vhu", version: "0" },
    labels: { round: `${round}` },
  });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }]);
  memory.fill(round, 0, 4096);
  await writer.writeMemory(0, 0, memory);
  writer.writeManifest({ devices: [], memory: { totalBytes: sizeBytes } });
  writer.finish();
  console.log(String(performance.now() - startMs));
}
