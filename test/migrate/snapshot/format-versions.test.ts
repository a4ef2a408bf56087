import { expect, test } from "bun:test";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { rewriteSnapshot } from "../../../migrate/mod.ts";
import { batchExtents } from "../../../migrate/snapshot/index-check.ts";
import { newFileKey, RecordType, SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { CompatibilityError } from "../../../src/errors.ts";
import { addressOf } from "../../../src/sys/mod.ts";
import { fixture } from "../../fixtures/make-snapshot.ts";
import { headerFields, MiB, manifest, PAGE, pages, temporaryFolder } from "./support.ts";

const SIZE = 8 * MiB;

/** Memory with every kind of extent, most of them beginning in the middle of a frame. */
async function writeMixed(path: string): Promise<Uint8Array> {
  const memory = new Uint8Array(SIZE);
  memory.set(pages(3 * 256, 1), 0);
  memory.set(pages(256, 1), 4 * MiB);
  for (let at = 5.5 * MiB; at < 7 * MiB; at += 128 * 1024) memory.set(pages(3, at), at);
  using writer = SnapshotWriter.toFile(path, headerFields);
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
  {
    using _ = writer.lookUpPages({ address: addressOf(memory), sizeBytes: SIZE });
    await writer.writeMemory(0, 0, memory);
  }
  writer.writeManifest(manifest);
  writer.finish();
  return memory;
}

test("version 0: what it has no room for is avoided, and both versions hold the same", async () => {
  using folder = temporaryFolder();
  const [newest, old, again] = ["1.vhu", "0.vhu", "2.vhu"].map((name) => join(folder.path, name)) as [
    string,
    string,
    string,
  ];
  const memory = await writeMixed(newest);
  using source = SnapshotReader.open(newest);
  await rewriteSnapshot(source, old, { formatVersion: 0 });
  using reader = SnapshotReader.open(old);
  expect(reader.formatVersion).toBe(0);
  expect(reader.header.host.cpu).toBe("unknown");
  expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  const batches = reader.records().filter(({ type }) => type === RecordType.extents);
  const extents = batches.map((entry) => batchExtents(reader.input, entry));
  expect(Math.max(...extents.map((batch) => batch.length))).toBeLessThanOrEqual(64);
  expect(extents.flat().every(({ skipBytes }) => skipBytes === 0)).toBe(true);
  expect(new Set(extents.flat().map(({ kind }) => kind))).toEqual(new Set(["zero", "data", "duplicate"]));
  await rewriteSnapshot(reader, again);
  using last = SnapshotReader.open(again);
  for (const each of [reader, last]) {
    const bytes = [...each.memory(0)].map((piece) =>
      "bytes" in piece ? piece.bytes : new Uint8Array(piece.sizeBytes),
    );
    expect(Buffer.compare(Buffer.concat(bytes), memory)).toBe(0);
  }
});

test("version 0 is refused with the reason for what it cannot be; other versions are not written", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "x.vhu");
  const write = (options: Parameters<typeof SnapshotWriter.toFile>[2]) => () =>
    SnapshotWriter.toFile(path, headerFields, options)[Symbol.dispose]();
  const recipient = await identityToRecipient(await generateX25519Identity());
  const fileKey = await newFileKey({ recipients: [recipient] });
  expect(write({ formatVersion: 0, fileKey })).toThrow("version 0 of the format has no encrypted files");
  using base = SnapshotReader.open(fixture.paths[1]!);
  expect(write({ formatVersion: 0, base })).toThrow("no files that are based on others");
  expect(write({ formatVersion: 2 })).toThrow(CompatibilityError);
});

test("many bare extents before a window do not tear the window's extents from their frame", async () => {
  using folder = temporaryFolder();
  const [below, above] = [join(folder.path, "base.vhu"), join(folder.path, "child.vhu")];
  const memory = pages(SIZE / PAGE, 3);
  const regions = [{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }];
  {
    using writer = SnapshotWriter.toFile(below, headerFields);
    writer.writeMemoryMap(regions);
    await writer.writeMemory(0, 0, memory);
    writer.writeManifest(manifest);
    writer.finish();
  }
  using base = SnapshotReader.open(below);
  const child = new Uint8Array(memory);
  for (let page = 1; page < 1024; page += 2) child.fill(0, page * PAGE, (page + 1) * PAGE);
  for (let page = 1024; page < 1280; page += 2) child.fill(9, page * PAGE, (page + 1) * PAGE);
  {
    using writer = SnapshotWriter.toFile(above, headerFields, { base });
    writer.writeMemoryMap(regions);
    for (let page = 0; page < 1024; page += 2) {
      writer.writeUnchanged(0, page * PAGE, PAGE);
      writer.writeHole(0, (page + 1) * PAGE, PAGE);
    }
    await writer.writeMemory(0, 1024 * PAGE, child.subarray(1024 * PAGE, 1280 * PAGE));
    writer.writeUnchanged(0, 1280 * PAGE, SIZE - 1280 * PAGE);
    writer.writeManifest(manifest);
    writer.finish();
  }
  using reader = SnapshotReader.open(above, { parents: [below] });
  expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  const bytes = [...reader.memory(0)].map((piece) =>
    "bytes" in piece ? piece.bytes : new Uint8Array(piece.sizeBytes),
  );
  expect(Buffer.compare(Buffer.concat(bytes), child)).toBe(0);
});
