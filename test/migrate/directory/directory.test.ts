import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { exportDirectory, importDirectory, isSnapshotDirectory } from "../../../migrate/mod.ts";
import { diffMemory, SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { FormatError, SyscallError, UsageError } from "../../../src/errors.ts";
import { fixture } from "../../fixtures/make-snapshot.ts";
import { pages, temporaryFolder } from "../snapshot/support.ts";

const source = fixture.paths[1]!;

async function exported(folder: string): Promise<string> {
  const path = join(folder, "web.d");
  using reader = SnapshotReader.open(source);
  await exportDirectory(reader, path);
  return path;
}

/** What importing says of a directory after a change. */
async function refusalOf(change: (path: string, json: Record<string, never>) => void): Promise<unknown> {
  using folder = temporaryFolder();
  const path = await exported(folder.path);
  const json = JSON.parse(readFileSync(join(path, "snapshot.json"), "utf8"));
  change(path, json);
  if (Object.keys(json).length > 0) writeFileSync(join(path, "snapshot.json"), JSON.stringify(json));
  const target = join(folder.path, "new.vhu");
  const refusal = await importDirectory(path, target).catch((error: unknown) => error);
  expect(() => readFileSync(target)).toThrow("ENOENT");
  return refusal;
}

test("there and back: the same machine, devices, states and memory", async () => {
  using folder = temporaryFolder();
  const path = await exported(folder.path);
  expect(isSnapshotDirectory(path)).toBe(true);
  const target = join(folder.path, "new.vhu");
  await importDirectory(path, target);
  using before = SnapshotReader.open(source);
  using after = SnapshotReader.open(target);
  const { id: _, ...header } = before.header;
  expect(after.header).toMatchObject(header);
  expect(after.manifest).toEqual(before.manifest);
  expect(after.memoryMap).toEqual(before.memoryMap);
  for (const { id } of before.memoryMap) expect([...diffMemory(before, after, id)]).toEqual([]);
  const streams = (reader: SnapshotReader) =>
    reader.streams.map(({ type, streamId, sha256 }) => [type, streamId, sha256]);
  expect(streams(after)).toEqual(streams(before));
  expect(after.verify({ deep: true })).toMatchObject({ ok: true });
});

test("a QEMU stream and large memory with holes come back as they were", async () => {
  using folder = temporaryFolder();
  const [first, path, last] = ["a.vhu", "a.d", "b.vhu"].map((name) => join(folder.path, name)) as [
    string,
    string,
    string,
  ];
  const stream = pages(700, 5);
  {
    using writer = SnapshotWriter.toFile(first, { writer: { name: "vhu", version: "0" } });
    writer.writeMemoryMap([{ id: 4, guestAddress: 0, sizeBytes: 16 << 20, name: "../../ram" }]);
    writer.writeHole(4, 0, 8 << 20);
    await writer.writeMemory(4, 8 << 20, pages(256, 9));
    writer.writeHole(4, 9 << 20, 7 << 20);
    const target = writer.writeQemuStream();
    for (let at = 0; at < stream.length; at += 1 << 20) target.write(stream.subarray(at, at + (1 << 20)));
    target.finish();
    writer.writeManifest({ machine: { kind: "qemu" }, devices: [], memory: { totalBytes: 16 << 20 } });
    writer.finish();
  }
  using before = SnapshotReader.open(first);
  await exportDirectory(before, path);
  await importDirectory(path, last, { level: 3 });
  using after = SnapshotReader.open(last);
  expect([...diffMemory(before, after, 4)]).toEqual([]);
  expect(Buffer.compare(Buffer.concat([...after.qemuStream()!]), stream)).toBe(0);
});

test("an edited one: what the JSON says is what is stored, and a changed state has its own size", async () => {
  using folder = temporaryFolder();
  const path = await exported(folder.path);
  const json = JSON.parse(readFileSync(join(path, "snapshot.json"), "utf8"));
  json.header.labels.edited = "yes";
  json.manifest.devices[0].queues[0].base = 77;
  writeFileSync(join(path, "snapshot.json"), JSON.stringify(json));
  writeFileSync(join(path, "device-0.state"), "another state");
  const target = join(folder.path, "new.vhu");
  await importDirectory(path, target);
  using reader = SnapshotReader.open(target);
  expect(reader.header.labels).toEqual({ purpose: "fixture", edited: "yes" });
  expect(reader.manifest.devices[0]).toMatchObject({ stateBytes: 13, queues: [{ base: 77 }, { base: 7 }] });
});

test("JSON that is wrong is refused by the field's name, and files by theirs", async () => {
  const field = async (change: (json: never) => void) => {
    const refusal = await refusalOf((_, json) => change(json as never));
    expect(refusal).toBeInstanceOf(FormatError);
    return (refusal as Error).message;
  };
  expect(await field((json: { header: { labels: unknown } }) => (json.header.labels = 5))).toContain(
    "labels",
  );
  expect(
    await field(
      (json: { manifest: { devices: { features: unknown }[] } }) =>
        (json.manifest.devices[0]!.features = "17"),
    ),
  ).toContain("devices.0.features");
  expect(
    await field(
      (json: { memoryMap: { regions: { sizeBytes: unknown }[] } }) =>
        (json.memoryMap.regions[0]!.sizeBytes = 4097),
    ),
  ).toContain("regions.0.sizeBytes");
  expect(await field((json: { version: unknown }) => (json.version = 99))).toContain("version 1");
  expect(
    await field(
      (json: { memoryMap: { regions: { id: unknown }[] } }) =>
        (json.memoryMap.regions[0]!.id = "../../etc/passwd"),
    ),
  ).toContain("regions.0.id");
  const cut = await refusalOf((path) => truncateSync(join(path, "memory-0.bin"), 8192));
  expect((cut as Error).message).toContain("has 262144 bytes, this file has 8192");
  const gone = await refusalOf((path) => rmSync(join(path, "memory-1.bin")));
  expect(gone).toBeInstanceOf(SyscallError);
  const text = await refusalOf((path, json) => {
    for (const key of Object.keys(json)) delete (json as Record<string, unknown>)[key];
    writeFileSync(join(path, "snapshot.json"), "{ not JSON");
  });
  expect((text as Error).message).toContain("not JSON");
});

test("a name that is taken is not written over; what failed leaves nothing", async () => {
  using folder = temporaryFolder();
  const path = await exported(folder.path);
  using reader = SnapshotReader.open(source);
  await expect(exportDirectory(reader, path)).rejects.toThrow(UsageError);
  await expect(exportDirectory(reader, join(folder.path, "none", "x"))).rejects.toThrow(SyscallError);
  const empty = join(folder.path, "empty");
  mkdirSync(empty);
  expect(isSnapshotDirectory(empty)).toBe(false);
  symlinkSync("/nowhere", join(folder.path, "link"));
  expect(isSnapshotDirectory(join(folder.path, "link"))).toBe(false);
  const abort = AbortSignal.abort(new UsageError("stopped"));
  await expect(exportDirectory(reader, join(folder.path, "y"), { signal: abort })).rejects.toThrow("stopped");
  const left = [...new Bun.Glob("*").scanSync({ cwd: folder.path, dot: true, onlyFiles: false })].sort();
  expect(left).toEqual(["empty", "link", "web.d"]);
});

test("links, pipes and folders in it are refused: it may come from somebody else", async () => {
  const names = ["snapshot.json", "memory-0.bin", "device-0.state", "machine-state.bin"];
  const others = [
    (path: string) => symlinkSync("/etc/hostname", path),
    (path: string) => symlinkSync("nowhere", path),
    (path: string) => Bun.spawnSync(["mkfifo", path]),
    (path: string) => mkdirSync(path),
  ];
  for (const name of names) {
    for (const make of others) {
      const refusal = await refusalOf((path, json) => {
        rmSync(join(path, name));
        make(join(path, name));
        // Else the description is written anew.
        for (const key of Object.keys(json)) delete json[key];
      });
      expect(refusal).toBeInstanceOf(FormatError);
      expect((refusal as FormatError).message).toContain("it is not a file itself");
      expect((refusal as FormatError).section).toContain(name);
    }
  }
});
