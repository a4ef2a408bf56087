import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadMemory, saveMemory } from "../../../migrate/ram/mod.ts";
import {
  type NewFileKey,
  newFileKey,
  RecordType,
  SnapshotReader,
  SnapshotWriter,
} from "../../../migrate/snapshot/mod.ts";
import { PageHasher, PageHashes } from "../../../migrate/snapshot/page-hashes.ts";
import { PageSet } from "../../../src/memory/mod.ts";
import { createMemfd, type Fd, Mapping } from "../../../src/sys/mod.ts";
import { resealContainer } from "../../fuzz/container.ts";
import { formatFailureOf, headerFields, MiB, manifest, PAGE, pages, temporaryFolder } from "./support.ts";

const SIZE = 16 * MiB;
const header = { ...headerFields, machine: { name: "web" } };
const map = (sizeBytes = SIZE) => [{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }];

function change(fd: Fd, act: (memory: Uint8Array) => void): void {
  using mapping = Mapping.ofFd(fd, { sizeBytes: SIZE });
  act(new Uint8Array(mapping.window(0, SIZE)));
}

function contentOf(fd: Fd): Buffer {
  let content = Buffer.alloc(0);
  change(fd, (memory) => {
    content = Buffer.from(memory.slice());
  });
  return content;
}

interface SaveOptions {
  readonly base?: SnapshotReader;
  readonly changed?: PageSet;
  readonly fileKey?: NewFileKey;
}

async function save(path: string, fd: Fd, { base, changed, fileKey }: SaveOptions = {}) {
  using writer = SnapshotWriter.toFile(path, header, { base, fileKey, pageHashes: true });
  writer.writeMemoryMap(map());
  await saveMemory(writer, 0, fd, SIZE, { changed });
  writer.writeManifest(manifest);
  return writer.finish();
}

async function loaded(reader: SnapshotReader): Promise<Buffer> {
  using fd = await loadMemory(reader, reader.memoryMap[0]!);
  return contentOf(fd);
}

/** The hashes in the file are those of the memory. */
function expectHashesOf(reader: SnapshotReader, memory: Uint8Array): void {
  const hashes = reader.pageHashes()!;
  const hasher = new PageHasher(hashes.key);
  const expected = new BigUint64Array((2 * memory.length) / PAGE);
  for (let at = 0; at < memory.length; at += PAGE)
    hasher.hash(memory.subarray(at, at + PAGE), expected, at / PAGE);
  expect(hashes.range(0, 0, memory.length)).toEqual(expected);
  // A parent may be damaged here; the hashes are right all the same.
  const result = reader.verify({ deep: true });
  expect(result.ok ? [] : result.problems.filter(({ section }) => section === "page hashes")).toEqual([]);
}

function newMachine(): Fd {
  const fd = createMemfd("guest", SIZE);
  change(fd, (memory) => {
    for (let at = 0; at < 12; at += 1) memory.set(pages(256, at), at * MiB);
  });
  return fd;
}

test("a base with hashes is not read: a series of saves finds what changed, by hashes and by a dirty log in turn", async () => {
  using folder = temporaryFolder();
  using memory = newMachine();
  const path = (day: number) => join(folder.path, `${day}.vhu`);
  const full = await save(path(0), memory);
  // A frame of the base is damaged: to compare with its bytes would fail.
  const whole = readFileSync(path(0));
  using first = SnapshotReader.open(path(0));
  expectHashesOf(first, contentOf(memory));
  const damaged = Buffer.from(whole);
  for (const { frame } of first.extents(0)) if (frame !== undefined) damaged[frame.offset + 9]! ^= 1;
  writeFileSync(path(0), damaged);
  for (let day = 1; day <= 4; day += 1) {
    const changed = new PageSet(SIZE);
    change(memory, (bytes) => {
      for (let page = day; page < 3000; page += 311) {
        bytes.set(pages(1, 1000 * day + page), page * PAGE);
        changed.add(page * PAGE, PAGE);
      }
      bytes.fill(0, (4 + day) * MiB, (4 + day) * MiB + 40 * PAGE);
      changed.add((4 + day) * MiB, 40 * PAGE);
    });
    using base = SnapshotReader.open(path(day - 1));
    const { sizeBytes } = await save(path(day), memory, day % 2 === 0 ? { base, changed } : { base });
    expect(sizeBytes).toBeLessThan(full.sizeBytes / 4);
    using reader = SnapshotReader.open(path(day));
    expectHashesOf(reader, contentOf(memory));
  }
  writeFileSync(path(0), whole);
  using last = SnapshotReader.open(path(4));
  expect(Buffer.compare(await loaded(last), contentOf(memory))).toBe(0);
  expect(last.verify({ deep: true })).toMatchObject({ ok: true });
});

test("of an encrypted base, too; and in windows too small for Workers", async () => {
  using folder = temporaryFolder();
  using memory = newMachine();
  const fileKey = await newFileKey({ passphrases: ["one two three"] });
  await save(join(folder.path, "a.vhu"), memory, { fileKey });
  using base = SnapshotReader.open(join(folder.path, "a.vhu"), { fileKey: fileKey.key });
  const entry = base.records().find(({ type }) => type === RecordType.pageHashes);
  expect(entry).toMatchObject({ isEncrypted: true, isCritical: false, typeName: "pageHashes" });
  change(memory, (bytes) => bytes.set(pages(1, 99), 5 * PAGE));
  const content = contentOf(memory);
  const path = join(folder.path, "b.vhu");
  {
    using writer = SnapshotWriter.toFile(path, header, { base });
    writer.writeMemoryMap(map());
    await writer.writeMemory(0, 0, content.subarray(0, 2 * MiB));
    writer.writeUnchanged(0, 2 * MiB, 10 * MiB);
    writer.writeHole(0, 12 * MiB, 4 * MiB);
    writer.nextMemoryPass();
    await writer.writeMemory(0, 7 * PAGE, pages(1, 98));
    writer.writeManifest(manifest);
    writer.finish();
  }
  content.set(pages(1, 98), 7 * PAGE);
  using locked = SnapshotReader.open(path);
  expect(locked.pageHashes()).toBeUndefined();
  using reader = SnapshotReader.open(path);
  reader.adoptParent(join(folder.path, "a.vhu"), { fileKey: fileKey.key });
  expectHashesOf(reader, content);
  expect(
    reader
      .extents(0)
      .filter(({ kind }) => kind === "data")
      .map(({ sizeBytes }) => sizeBytes),
  ).toEqual([PAGE, PAGE]);
});

test("a base without hashes leaves none; a zero of a later pass that overtakes an earlier write leaves none", async () => {
  using folder = temporaryFolder();
  using memory = newMachine();
  const [plain, child, passes] = ["plain", "child", "passes"].map((name) =>
    join(folder.path, `${name}.vhu`),
  ) as [string, string, string];
  {
    using writer = SnapshotWriter.toFile(plain, header);
    writer.writeMemoryMap(map());
    await saveMemory(writer, 0, memory, SIZE);
    writer.writeManifest(manifest);
    writer.finish();
  }
  using base = SnapshotReader.open(plain);
  expect(base.pageHashes()).toBeUndefined();
  await save(child, memory, { base });
  using reader = SnapshotReader.open(child);
  expect(reader.pageHashes()).toBeUndefined();
  {
    using writer = SnapshotWriter.toFile(passes, header, { pageHashes: true });
    writer.writeMemoryMap(map());
    const flight = writer.writeMemory(0, 0, contentOf(memory));
    writer.nextMemoryPass();
    writer.writeHole(0, 0, MiB);
    await flight;
    writer.writeManifest(manifest);
    writer.finish();
  }
  using overtaken = SnapshotReader.open(passes);
  expect(overtaken.pageHashes()).toBeUndefined();
});

test("records that cannot be are refused; those of a later version are not for us", () => {
  const data = (sizeBytes: number) => () => [{ kind: "data", offset: 0, sizeBytes }] as const;
  const hashes = new PageHashes(map(2 * PAGE), new Uint8Array(16).fill(7));
  const [payload] = [...hashes.payloads(data(2 * PAGE))] as [Uint8Array];
  const readAs = (sizeBytes: number, ...payloads: Uint8Array[]) =>
    PageHashes.read(map(sizeBytes), data(sizeBytes), payloads);
  const read = (act: (bytes: Uint8Array, view: DataView) => void, ...more: Uint8Array[]) => {
    const bytes = payload.slice();
    act(bytes, new DataView(bytes.buffer));
    return readAs(2 * PAGE, bytes, ...more);
  };
  expect(read(() => {})?.key).toEqual(hashes.key);
  expect(read((_, view) => view.setUint32(0, 1, true))).toBeUndefined();
  expect(readAs(3 * PAGE, payload)).toBeUndefined();
  expect(readAs(2 * PAGE)).toBeUndefined();
  for (const act of [
    () => readAs(2 * PAGE, payload.subarray(0, 40)),
    () => readAs(2 * PAGE, payload.subarray(0, 20)),
    () => readAs(PAGE, payload),
    () => readAs(2 * PAGE, payload, payload),
    () => read((_, view) => view.setUint32(8, 1, true)),
    () => read((_, view) => view.setUint32(12, 0xffff_ffff, true)),
    () => read((bytes) => bytes.fill(1, 16, 17), payload),
  ])
    expect(formatFailureOf(act).section).toBe("page hashes");
});

test("verify --deep compares them with the pages, and names the memory whose hashes are wrong", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.vhu");
  const memory = new Uint8Array(4 * MiB);
  memory.set(pages(512), MiB);
  memory.copyWithin(0, 2 * MiB, 3 * MiB);
  const regions = [
    { id: 3, guestAddress: 0, sizeBytes: MiB, name: "low" },
    { id: 1, guestAddress: 0x1_0000_0000, sizeBytes: 3 * MiB, name: "high" },
  ];
  {
    using writer = SnapshotWriter.toFile(path, header, { pageHashes: true });
    writer.writeMemoryMap(regions);
    await writer.writeMemory(3, 0, memory.subarray(0, MiB));
    await writer.writeMemory(1, 0, memory.subarray(MiB));
    writer.nextMemoryPass();
    await writer.writeMemory(1, 5 * PAGE, pages(2, 9));
    writer.writeManifest(manifest);
    writer.finish();
  }
  const whole = new Uint8Array(readFileSync(path));
  using reader = SnapshotReader.open(path);
  expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  const records = reader.records().filter(({ type }) => type === RecordType.pageHashes);
  expect(records).toHaveLength(2);
  /** Changes hash number `page` of each record, its checksums mended. */
  const problemsWith = (...pageNumbers: number[]) => {
    const bytes = whole.slice();
    for (const { offset } of records)
      for (const page of pageNumbers) bytes[offset + 24 + 32 + 16 * page]! ^= 1;
    resealContainer(bytes);
    writeFileSync(path, bytes);
    using changed = SnapshotReader.open(path);
    expect(changed.verify()).toMatchObject({ ok: true });
    const result = changed.verify({ deep: true });
    return result.ok ? [] : result.problems;
  };
  expect(problemsWith()).toEqual([]);
  const [problem, ...others] = problemsWith(0, 6, 7, 9);
  expect(others).toEqual([]);
  expect(problem).toMatchObject({ section: "page hashes", offset: records[0]!.offset });
  expect(problem?.message).toContain(
    "memory high 0x100000000…0x100001000, high 0x100006000…0x100008000, high 0x100009000…0x10000a000, low 0x0…0x1000 and 2 more",
  );
});
