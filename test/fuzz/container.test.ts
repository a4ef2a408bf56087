import { afterAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { RecordType, SnapshotReader } from "../../migrate/snapshot/mod.ts";
import {
  CONTAINER_KEY,
  containerCorpus,
  containerFolder,
  fuzzContainer,
  resealContainer,
  runContainer,
} from "./container.ts";

const folder = containerFolder();
afterAll(() => folder[Symbol.dispose]());

test.each(containerCorpus())("corpus: %s", (name, bytes) => {
  const outcome = runContainer(folder.file, bytes);
  expect(outcome === "accepted").toBe(name.startsWith("ok-"));
});

test("the corpus has every type of record, every kind of extent, and every way that a file can be", () => {
  const [types, kinds] = [new Set<number>(), new Set<string>()];
  const ways = new Set<string>();
  for (const [name, bytes] of containerCorpus()) {
    if (!name.startsWith("ok-")) continue;
    writeFileSync(folder.file, bytes);
    using reader = SnapshotReader.open(folder.file, { fileKey: CONTAINER_KEY });
    for (const { type } of reader.records()) types.add(type);
    for (const { id } of reader.memoryMap) for (const { kind } of reader.extents(id)) kinds.add(kind);
    ways.add(reader.isEncrypted ? "encrypted" : "plain");
    ways.add(reader.parent === undefined ? "full" : "incremental");
    ways.add(`version ${reader.formatVersion}`);
  }
  // One is reserved, and never written.
  const missing = Object.entries(RecordType).filter(([, type]) => !types.has(type));
  expect(missing.map(([name]) => name)).toEqual(["device"]);
  expect([...kinds].sort()).toEqual(["data", "duplicate", "parent", "zero"]);
  expect([...ways].sort()).toEqual(["encrypted", "full", "incremental", "plain", "version 0", "version 1"]);
});

test("mending a whole file changes nothing", () => {
  for (const [name, bytes] of containerCorpus()) {
    if (!name.startsWith("ok-")) continue;
    const mended = new Uint8Array(bytes);
    resealContainer(mended);
    expect(Buffer.compare(mended, bytes)).toBe(0);
  }
});

test("3,000 damaged snapshots keep the promise, and a seed gives the same run twice", () => {
  const first = fuzzContainer(20261123, 3_000);
  expect(first.size).toBeGreaterThan(8);
  expect([...fuzzContainer(20261123, 300)]).toEqual([...fuzzContainer(20261123, 300)]);
});
