import { describe, expect, test } from "bun:test";
import { randomFillSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { loadMemory, saveMemory } from "../../../migrate/ram/mod.ts";
import { writeAll } from "../../../migrate/snapshot/file-io.ts";
import { SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { SyscallError } from "../../../src/errors.ts";
import { createMemfd, type Fd, Mapping } from "../../../src/sys/mod.ts";
import { randomNumbers } from "../../fuzz/mutate.ts";
import {
  asyncFailureOf,
  failureOf,
  headerFields,
  MiB,
  manifest,
  PAGE,
  pages,
  temporaryFolder,
} from "./support.ts";

const SIZE = 64 * MiB;

/** Guest memory: unique pages, copies of single pages all over it, runs of copies, zeros, a hole. */
function guestMemory(): Fd {
  const fd = createMemfd("guest", SIZE);
  using mapping = Mapping.ofFd(fd, { sizeBytes: SIZE });
  const memory = new Uint8Array(mapping.window(0, SIZE));
  for (let at = 0; at < 40; at += 1) memory.set(pages(256, at), at * MiB);
  const random = randomNumbers(7);
  for (let count = 0; count < 3000; count += 1) {
    const [from, to] = [random(40 * 256) * PAGE, random(40 * 256) * PAGE];
    memory.copyWithin(to, from, from + PAGE);
    if (count % 10 === 0) memory.fill(0, from, from + PAGE);
  }
  memory.copyWithin(41 * MiB + 5 * PAGE, 3 * MiB, 9 * MiB);
  return fd;
}

function contentOf(fd: Fd): Buffer {
  using mapping = Mapping.ofFd(fd, { sizeBytes: SIZE, readOnly: true });
  return Buffer.from(new Uint8Array(mapping.window(0, SIZE)).slice());
}

async function save(path: string, fd: Fd): Promise<ReturnType<SnapshotWriter["finish"]>> {
  using writer = SnapshotWriter.toFile(path, headerFields);
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
  await saveMemory(writer, 0, fd, SIZE);
  writer.writeManifest(manifest);
  return writer.finish();
}

describe("memory through Workers", () => {
  test("comes back as it was, with single pages stored once", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    using memory = guestMemory();
    const { stats } = await save(path, memory);
    expect(stats.duplicateBytes).toBeGreaterThan(6 * MiB + 1000 * PAGE);
    expect(stats.zeroBytes).toBeGreaterThan(15 * MiB);
    using reader = SnapshotReader.open(path);
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
    const done: number[] = [];
    const options = { onProgress: (progress: { done: number }) => done.push(progress.done) };
    using loaded = await loadMemory(reader, reader.memoryMap[0]!, options);
    expect(Buffer.compare(contentOf(loaded), contentOf(memory))).toBe(0);
    expect(done.at(-1)).toBe(SIZE);
    const serial = new Uint8Array(SIZE);
    for (const piece of reader.memory(0)) if ("bytes" in piece) serial.set(piece.bytes, piece.offset);
    expect(Buffer.compare(serial, contentOf(memory))).toBe(0);
  });

  test("that is damaged is refused, with its place", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    using memory = guestMemory();
    await save(path, memory);
    const bytes = readFileSync(path);
    using whole = SnapshotReader.open(path);
    const frames = whole.extents(0).flatMap(({ frame }) => frame ?? []);
    const frame = frames[frames.length >> 1]!;
    bytes[frame.offset + (frame.sizeBytes >> 1)]! ^= 4;
    writeFileSync(path, bytes);
    using damaged = SnapshotReader.open(path);
    const before = Mapping.liveLabels().length;
    const load = loadMemory(damaged, damaged.memoryMap[0]!);
    expect(load).rejects.toMatchObject({
      code: "FORMAT",
      section: expect.stringContaining("memory region 0"),
    });
    await load.catch(() => undefined);
    expect(Mapping.liveLabels()).toHaveLength(before);
  });

  test("stops when it is told to", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    using memory = guestMemory();
    await save(path, memory);
    using reader = SnapshotReader.open(path);
    const load = loadMemory(reader, reader.memoryMap[0]!, { signal: AbortSignal.abort(new Error("enough")) });
    expect(load).rejects.toThrow("enough");
    await load.catch(() => undefined);
  });

  test("stops where the writer fails, and the next save works", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    using memory = guestMemory();
    let count = 0;
    using writer = SnapshotWriter.toFile(path, headerFields, {
      write: (_fd, _bytes, what) => {
        if (++count > 3) throw new Error(`no more room in ${what}`);
      },
    });
    writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
    const saving = saveMemory(writer, 0, memory, SIZE);
    expect(saving).rejects.toThrow("no more room");
    await saving.catch(() => undefined);
    await save(path, memory);
  });

  test("that is given several times at once, out of order and in two passes, comes back", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    using fd = guestMemory();
    const memory = contentOf(fd);
    {
      using writer = SnapshotWriter.toFile(path, headerFields);
      writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
      const flights: Promise<void>[] = [];
      for (let at = SIZE - 8 * MiB; at >= 0; at -= 8 * MiB)
        flights.push(writer.writeMemory(0, at, memory.subarray(at, at + 8 * MiB)));
      writer.nextMemoryPass();
      flights.push(writer.writeMemory(0, MiB, pages(3, 88)));
      writer.writeManifest(manifest);
      expect(failureOf(() => writer.finish()).message).toContain("await writeMemory");
      await Promise.all(flights);
      writer.finish();
    }
    memory.set(pages(3, 88), MiB);
    using reader = SnapshotReader.open(path);
    using loaded = await loadMemory(reader, reader.memoryMap[0]!);
    expect(Buffer.compare(contentOf(loaded), memory)).toBe(0);
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  });

  test("fails in every write that is under way, and in all that follows", async () => {
    using folder = temporaryFolder();
    const memory = randomFillSync(new Uint8Array(60 * MiB));
    let count = 0;
    using writer = SnapshotWriter.toFile(join(folder.path, "a.vhu"), headerFields, {
      write: (fd, bytes, what) => {
        if (++count > 2) throw new SyscallError("write", "EIO", what);
        writeAll(fd, bytes, what);
      },
    });
    writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
    const flights = [0, 1, 2].map((at) =>
      writer.writeMemory(0, at * 20 * MiB, memory.subarray(at * 20 * MiB, (at + 1) * 20 * MiB)),
    );
    for (const flight of flights) expect(await asyncFailureOf(() => flight)).toMatchObject({ errno: "EIO" });
    expect(failureOf(() => writer.writeHole(0, 0, PAGE))).toMatchObject({ errno: "EIO" });
  });
});
