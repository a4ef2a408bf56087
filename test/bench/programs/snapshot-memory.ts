/**
 * Memory to a snapshot or back, in seconds on stdout, and seconds of processor; with `--beside`, instead, the MiB that it needed beside the guest's.
 *
 *     save MEMORY FILE            all of it
 *     track MEMORY FILE           all of it, with a hash of each page
 *     save MEMORY FILE BASE       what changed, by those hashes
 *     save MEMORY FILE BASE SEED  what changed, by a dirty log: the pages that `change` changed
 *     load MEMORY FILE
 *     change MEMORY SEED          one page in a hundred
 *     repeat MEMORY FILE BYTES    a machine of so many bytes, by that memory over and over
 */
import { fstatSync } from "node:fs";
import { loadMemory, saveMemory } from "../../../migrate/ram/mod.ts";
import { SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { PAGE_BYTES, PageSet } from "../../../src/memory/mod.ts";
import { Mapping, O, openFile, sizeOf } from "../../../src/sys/mod.ts";
import { randomNumbers } from "../../fuzz/mutate.ts";

const header = { writer: { name: "bench", version: "1" }, machine: { name: "bench" } };
const beside = process.argv.includes("--beside");
const [verb, memoryPath, path, ...more] = process.argv.slice(2).filter((word) => word !== "--beside") as [
  string,
  string,
  string,
  ...string[],
];
const startMs = performance.now();
using memory = openFile(memoryPath, verb === "change" ? O.RDWR : O.RDONLY);
const sizeBytes = sizeOf(memory);
switch (verb) {
  case "save":
  case "track":
    await save();
    break;
  case "load":
    await load();
    break;
  case "change":
    change();
    break;
  case "repeat":
    await repeat(Number(more[0]));
    break;
}
const seconds = (performance.now() - startMs) / 1000;
const guestBytes = verb === "save" ? fstatSync(memory.number).blocks * 512 : 0;
const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
if (beside) console.log((maxRSS * 1024 - guestBytes) / 2 ** 20);
else console.log(`${seconds} ${(userCPUTime + systemCPUTime) / 1e6}`);

async function save(): Promise<void> {
  const [basePath, seed] = more;
  using base = basePath === undefined ? undefined : SnapshotReader.open(basePath);
  using writer = SnapshotWriter.toFile(path, header, { base, pageHashes: verb === "track" });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }]);
  const changed = seed === undefined ? undefined : changedPages(Number(seed));
  await saveMemory(writer, 0, memory, sizeBytes, { changed });
  writer.writeManifest({ devices: [], memory: { totalBytes: sizeBytes } });
  writer.finish();
}

/** The memory is there until this process ends: zstd, too, leaves its file. */
async function load(): Promise<void> {
  using reader = SnapshotReader.open(path);
  for (const region of reader.memoryMap) await loadMemory(reader, region);
}

function changedPages(seed: number): PageSet {
  const random = randomNumbers(seed);
  const pages = new PageSet(sizeBytes);
  for (let count = 0; count < pages.pageCount / 100; count += 1)
    pages.add(random(pages.pageCount) * PAGE_BYTES, PAGE_BYTES);
  return pages;
}

/** Some words of each page, as a program that works on it changes them. */
function change(): void {
  const random = randomNumbers(Number(path));
  using mapping = Mapping.ofFd(memory, { sizeBytes });
  for (const { offset, sizeBytes: runBytes } of changedPages(Number(path)).runs()) {
    const words = new Uint32Array(mapping.window(offset, runBytes));
    for (let at = 0; at < words.length; at += 64) words[at] = random(2 ** 32);
  }
}

async function repeat(totalBytes: number): Promise<void> {
  using mapping = Mapping.ofFd(memory, { sizeBytes, readOnly: true });
  using writer = SnapshotWriter.toFile(path, header);
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: totalBytes, name: "ram" }]);
  const piece = 64 << 20;
  for (let at = 0; at < totalBytes; at += piece) {
    const window = mapping.window(at % sizeBytes, Math.min(piece, totalBytes - at));
    await writer.writeMemory(0, at, new Uint8Array(window));
    mapping.closeWindow(window);
  }
  writer.writeManifest({ devices: [], memory: { totalBytes } });
  writer.finish();
}
