/** Memory to a snapshot or back, in seconds on stdout: `save|load MEMORY FILE`. Extra memory goes to stderr. */
import { loadMemory, saveMemory } from "../../../migrate/ram/mod.ts";
import { SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { O, openFile, sizeOf } from "../../../src/sys/mod.ts";

const [verb, memoryPath, path] = process.argv.slice(2) as [string, string, string];
const startMs = performance.now();
if (verb === "save") {
  using fd = openFile(memoryPath, O.RDONLY);
  const sizeBytes = sizeOf(fd);
  using writer = SnapshotWriter.toFile(path, { writer: { name: "bench", version: "1" } });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }]);
  await saveMemory(writer, 0, fd, sizeBytes);
  writer.writeManifest({ devices: [], memory: { totalBytes: sizeBytes } });
  writer.finish();
} else {
  using reader = SnapshotReader.open(path);
  for (const region of reader.memoryMap) (await loadMemory(reader, region))[Symbol.dispose]();
}
console.log((performance.now() - startMs) / 1000);
console.error(`${verb}: ${Math.round(process.resourceUsage().maxRSS / 1024)} MiB at most`);
