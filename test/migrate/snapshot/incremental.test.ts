import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rewriteSnapshot } from "../../../migrate/mod.ts";
import { loadMemory, saveMemory } from "../../../migrate/ram/mod.ts";
import { encodeParent } from "../../../migrate/snapshot/manifest.ts";
import { RecordType, SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { CompatibilityError, FormatError } from "../../../src/errors.ts";
import { PageSet } from "../../../src/memory/mod.ts";
import { createMemfd, type Fd, Mapping } from "../../../src/sys/mod.ts";
import { cyclePaths } from "../../fixtures/make-cycle.ts";
import { resealContainer } from "../../fuzz/container.ts";
import {
  asyncFailureOf,
  failureOf,
  forge,
  formatFailureOf,
  headerFields,
  MiB,
  manifest,
  PAGE,
  pages,
  temporaryFolder,
} from "./support.ts";

const SIZE = 24 * MiB;
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

async function save(path: string, fd: Fd, base?: SnapshotReader) {
  using writer = SnapshotWriter.toFile(path, header, { base });
  writer.writeMemoryMap(map());
  await saveMemory(writer, 0, fd, SIZE);
  writer.writeManifest(manifest);
  return writer.finish();
}

function newMachine(): Fd {
  const fd = createMemfd("guest", SIZE);
  change(fd, (memory) => {
    for (let at = 0; at < 16; at += 1) memory.set(pages(256, at), at * MiB);
    memory.copyWithin(18 * MiB, 2 * MiB, 3 * MiB);
  });
  return fd;
}

/** mon.vhu, and tue.vhu and wed.vhu on top of it; `memory` is what wed.vhu holds. */
async function threeDays(folder: string) {
  const [mon, tue, wed] = ["mon", "tue", "wed"].map((day) => join(folder, `${day}.vhu`)) as [
    string,
    string,
    string,
  ];
  const memory = newMachine();
  const full = await save(mon, memory);
  change(memory, (bytes) => {
    for (let page = 3; page < 16 * 256; page += 100) bytes.set(pages(1, 1000 + page), page * PAGE);
    bytes.fill(0, 5 * MiB, 6 * MiB);
    bytes.set(pages(2, 77), 20 * MiB);
  });
  using monday = SnapshotReader.open(mon);
  const second = await save(tue, memory, monday);
  change(memory, (bytes) => bytes.set(pages(3, 99), 5 * MiB + 7 * PAGE));
  using tuesday = SnapshotReader.open(tue);
  const third = await save(wed, memory, tuesday);
  return { mon, tue, wed, memory, sizes: [full, second, third].map(({ sizeBytes }) => sizeBytes) };
}

async function loaded(path: string): Promise<Buffer> {
  using reader = SnapshotReader.open(path);
  using fd = await loadMemory(reader, reader.memoryMap[0]!);
  return contentOf(fd);
}

describe("an incremental snapshot", () => {
  test("holds what changed, loads through the chain, and flattens", async () => {
    using folder = temporaryFolder();
    const { mon, wed, memory, sizes } = await threeDays(folder.path);
    using _ = memory;
    const [full, second, third] = sizes as [number, number, number];
    expect(second).toBeLessThan(full / 10);
    expect(third).toBeLessThan(10_000);
    expect(Buffer.compare(await loaded(wed), contentOf(memory))).toBe(0);
    using reader = SnapshotReader.open(wed);
    expect(reader.parent).toMatchObject({ depth: 2, file: "tue.vhu" });
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
    using tuesday = SnapshotReader.open(join(folder.path, "tue.vhu"));
    expect(
      tuesday.extents(0).find(({ kind, offset }) => kind === "zero" && offset === 5 * MiB),
    ).toBeDefined();
    const flat = join(folder.path, "flat.vhu");
    await rewriteSnapshot(reader, flat);
    rmSync(mon);
    expect(Buffer.compare(await loaded(flat), contentOf(memory))).toBe(0);
    using flattened = SnapshotReader.open(flat);
    expect(flattened.parent).toBeUndefined();
  });

  test("takes what a dirty log says", async () => {
    using folder = temporaryFolder();
    const { wed, memory } = await threeDays(folder.path);
    using _ = memory;
    using base = SnapshotReader.open(wed);
    const path = join(folder.path, "thu.vhu");
    {
      using writer = SnapshotWriter.toFile(path, header, { base });
      writer.writeMemoryMap(map());
      writer.writeUnchanged(0, 0, MiB);
      await writer.writeMemory(0, MiB, pages(1, 5));
      writer.writeUnchanged(0, MiB + PAGE, SIZE - MiB - PAGE);
      writer.writeManifest(manifest);
      writer.finish();
    }
    change(memory, (bytes) => bytes.set(pages(1, 5), MiB));
    expect(Buffer.compare(await loaded(path), contentOf(memory))).toBe(0);
  });

  test("takes a set of changed pages, anywhere, and looks at no other", async () => {
    using folder = temporaryFolder();
    const { wed, memory } = await threeDays(folder.path);
    using _ = memory;
    using base = SnapshotReader.open(wed);
    const before = contentOf(memory);
    const changed = new PageSet(SIZE);
    // Single pages all over, one that becomes zero, a run over several frames, and the last page.
    const list = [...Array.from({ length: 30 }, (_, index) => index * 150), 1300, 6143];
    for (const page of list) changed.add(page * PAGE, PAGE);
    changed.add(10 * MiB + PAGE, 3 * MiB);
    change(memory, (bytes) => {
      for (const page of list) bytes.set(pages(1, 5000 + page), page * PAGE);
      bytes.fill(0, 1300 * PAGE, 1301 * PAGE);
      bytes.set(pages(768, 6), 10 * MiB + PAGE);
    });
    const expected = contentOf(memory);
    // Nobody says that this one has changed: it stays as it was.
    change(memory, (bytes) => bytes.set(pages(1, 9), 17 * MiB));
    const path = join(folder.path, "thu.vhu");
    {
      using writer = SnapshotWriter.toFile(path, header, { base });
      expect(writer.baseRoot).toBe(base.root);
      writer.writeMemoryMap(map());
      await saveMemory(writer, 0, memory, SIZE, { changed });
      writer.writeManifest(manifest);
      writer.finish();
    }
    expect(Buffer.compare(before, expected)).not.toBe(0);
    expect(Buffer.compare(await loaded(path), expected)).toBe(0);
    using writer = SnapshotWriter.toFile(path, header);
    writer.writeMemoryMap(map());
    const error = await asyncFailureOf(() => saveMemory(writer, 0, memory, SIZE, { changed }));
    expect(error.message).toContain("only a snapshot with a base");
  });

  test("finds a parent under another name, or where it is told to look", async () => {
    using folder = temporaryFolder();
    const { tue, wed, memory } = await threeDays(folder.path);
    using _ = memory;
    renameSync(tue, join(folder.path, "renamed.vhu"));
    expect(Buffer.compare(await loaded(wed), contentOf(memory))).toBe(0);
    const away = join(folder.path, "away");
    mkdirSync(away);
    renameSync(join(folder.path, "renamed.vhu"), join(away, "t.vhu"));
    using missing = SnapshotReader.open(wed);
    const error = failureOf(() => missing.resolvedExtents(0));
    expect(error).toBeInstanceOf(CompatibilityError);
    expect(error.message).toContain("tue.vhu");
    const parents = [join(away, "t.vhu"), join(folder.path, "mon.vhu")];
    using found = SnapshotReader.open(wed, { parents });
    expect(found.verify({ deep: true })).toMatchObject({ ok: true });
  });

  test("says that its parent is damaged", async () => {
    using folder = temporaryFolder();
    const { mon, wed, memory } = await threeDays(folder.path);
    using _ = memory;
    const bytes = new Uint8Array(await Bun.file(mon).arrayBuffer());
    using whole = SnapshotReader.open(mon);
    const frame = whole.extents(0)[0]?.frame;
    bytes[(frame?.offset ?? 0) + 30]! ^= 1;
    writeFileSync(mon, bytes);
    using reader = SnapshotReader.open(wed);
    const result = reader.verify({ deep: true });
    expect(result.ok).toBe(false);
    if (!result.ok) expect(result.problems[0]?.section).toContain("parent");
    expect(loaded(wed)).rejects.toBeInstanceOf(FormatError);
    await loaded(wed).catch(() => undefined);
  });
});

describe("a base is refused", () => {
  test("that is of another machine, or has other memory", async () => {
    using folder = temporaryFolder();
    const { mon, memory } = await threeDays(folder.path);
    using _ = memory;
    using base = SnapshotReader.open(mon);
    for (const [name, sizeBytes] of [
      ["other", SIZE],
      ["web", 2 * SIZE],
    ] as const) {
      const error = failureOf(() => {
        const fields = { ...headerFields, machine: { name } };
        using writer = SnapshotWriter.toFile(join(folder.path, "x.vhu"), fields, { base });
        writer.writeMemoryMap(map(sizeBytes));
      });
      expect(error).toBeInstanceOf(CompatibilityError);
    }
  });

  test("that stands on too many others", () => {
    using folder = temporaryFolder();
    let last = "";
    const error = failureOf(() => {
      for (let depth = 0; depth < 40; depth += 1) {
        using base = depth === 0 ? undefined : SnapshotReader.open(last);
        last = join(folder.path, `${depth}.vhu`);
        using writer = SnapshotWriter.toFile(last, header, { base });
        writer.writeManifest(manifest);
        writer.finish();
      }
    });
    expect(error.message).toContain("the limit is 32");
  });

  test("that is the file itself, or lies about its depth", () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    const write = (root: string, depth: number) =>
      forge(path, {
        regions: map(MiB),
        records: (output) => {
          output.record(RecordType.parent, 1, 0n, encodeParent({ root, id: "", depth, file: "a.vhu" }));
          return {
            extents: [
              { regionId: 0, passNumber: 0, offset: 0, sizeBytes: MiB, kind: "parent", skipBytes: 0 },
            ],
          };
        },
      });
    write("0".repeat(64), 1);
    using orphan = SnapshotReader.open(path);
    expect(failureOf(() => orphan.resolvedExtents(0))).toBeInstanceOf(CompatibilityError);
    const below = join(folder.path, "below.vhu");
    renameSync(path, below);
    using first = SnapshotReader.open(below);
    write(first.root, 1);
    using liar = SnapshotReader.open(path);
    expect(failureOf(() => liar.resolvedExtents(0)).message).toContain("a chain of 2 files");
    // More than a writer would ever say.
    const absurd = JSON.stringify({ root: first.root, id: "", depth: 33, file: "below.vhu" });
    forge(path, {
      records: (output) => {
        output.record(RecordType.parent, 1, 0n, new TextEncoder().encode(absurd));
        return {};
      },
    });
    const error = formatFailureOf(() => SnapshotReader.open(path));
    expect([error.section, error.message]).toEqual(["parent", expect.stringContaining("<=32")]);
  });

  test("that names the file in turn: a real cycle, by roots that hold", async () => {
    for (const [index, path] of cyclePaths.entries()) {
      using reader = SnapshotReader.open(path);
      using other = SnapshotReader.open(cyclePaths[1 - index]!);
      expect([reader.parent?.root, other.parent?.root]).toEqual([other.root, reader.root]);
      expect(reader.verify()).toMatchObject({ ok: true });
    }
    // The first stands on the second by its depth, too; the second cannot stand on the first.
    for (const [path, message] of [
      [cyclePaths[0]!, "a file is its own parent, by way of others"],
      [cyclePaths[1]!, "a chain of 3 files, where 1 were said (the limit is 32)"],
    ] as const) {
      using reader = SnapshotReader.open(path);
      const reads: (() => unknown)[] = [
        () => reader.resolvedExtents(0),
        () => [...reader.memory(0)],
        () => reader.verify({ deep: true }),
      ];
      for (const read of reads) {
        const error = formatFailureOf(read);
        expect([error.section, error.message]).toEqual(["parent", expect.stringContaining(message)]);
      }
      using folder = temporaryFolder();
      const flat = join(folder.path, "flat.vhu");
      const failure = await asyncFailureOf(() => rewriteSnapshot(reader, flat));
      expect(failure.message).toContain(message);
      expect(readdirSync(folder.path)).toEqual([]);
    }
  });

  test("that is of another machine, or has other memory, when it is read", async () => {
    using folder = temporaryFolder();
    const { mon, tue, memory } = await threeDays(folder.path);
    using _ = memory;
    using base = SnapshotReader.open(mon);
    for (const [name, sizeBytes, message] of [
      ["mail", SIZE, 'of the machine "mail", this is "web"'],
      ["web", 2 * SIZE, "other memory regions"],
    ] as const) {
      const path = join(folder.path, "x.vhu");
      using writer = SnapshotWriter.toFile(path, { ...headerFields, machine: { name } });
      writer.writeMemoryMap(map(sizeBytes));
      writer.writeHole(0, 0, sizeBytes);
      writer.writeManifest(manifest);
      const { root } = writer.finish();
      // tue.vhu names the other file now; its checksums are mended.
      using child = SnapshotReader.open(tue);
      const entry = child.records().find(({ type }) => type === RecordType.parent)!;
      const text = new TextDecoder().decode(child.readRecord(entry)).replace(base.root, root);
      const bytes = new Uint8Array(await Bun.file(tue).arrayBuffer());
      bytes.set(new TextEncoder().encode(text), entry.offset + 24);
      resealContainer(bytes);
      const changed = join(folder.path, "changed.vhu");
      writeFileSync(changed, bytes);
      using reader = SnapshotReader.open(changed);
      const error = failureOf(() => reader.resolvedExtents(0));
      expect(error).toBeInstanceOf(CompatibilityError);
      expect(error.message).toContain(message);
    }
  });
});
