import { describe, expect, test } from "bun:test";
import { closeSync, existsSync, openSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { constants, zstdCompressSync } from "node:zlib";
import { createZstd, frameBoundBytes } from "../../../migrate/snapshot/compression.ts";
import { SnapshotReader, SnapshotWriter, verifySnapshot } from "../../../migrate/snapshot/mod.ts";
import { failureOf, headerFields, MiB, manifest, PAGE, pages, temporaryFolder } from "./support.ts";

/** All of a region as the reader gives it. */
function regionOf(reader: SnapshotReader, regionId: number, sizeBytes: number): Uint8Array {
  const memory = new Uint8Array(sizeBytes).fill(0xee);
  for (const piece of reader.memory(regionId)) {
    if ("bytes" in piece) memory.set(piece.bytes, piece.offset);
    else memory.fill(0, piece.offset, piece.offset + piece.sizeBytes);
  }
  return memory;
}

describe("a snapshot file", () => {
  test("gives back memory, states, manifest and header", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    const memory = new Uint8Array(5 * MiB);
    memory.set(pages(300), 0);
    memory.set(pages(3, 9), 3 * MiB + 5 * PAGE);
    memory.set(memory.subarray(0, MiB), 4 * MiB);
    const state = crypto.getRandomValues(new Uint8Array(65536));
    using writer = SnapshotWriter.toFile(path, { ...headerFields, labels: { a: "b" } });
    writer.writeMemoryMap([
      { id: 7, guestAddress: 0, sizeBytes: memory.length, name: "ram" },
      { id: 8, guestAddress: 0x1_0000_0000, sizeBytes: MiB, name: "hole" },
    ]);
    await writer.writeMemory(7, 0, memory);
    const [first, second] = [writer.writeDeviceState(0), writer.writeDeviceState(1)];
    for (let index = 0; index < 40; index += 1) {
      first.write(state);
      second.write(state.subarray(0, index));
    }
    writer.writeHole(8, 0, MiB);
    second.finish();
    expect(first.finish().sizeBytes).toBe(40 * state.length);
    writer.writeMachineState(state.subarray(0, 100));
    writer.writeManifest(manifest);
    const summary = writer.finish();
    expect(summary.sizeBytes).toBe(statSync(path).size);
    expect(summary.stats.zeroBytes + summary.stats.duplicateBytes + summary.stats.dataBytes).toBe(6 * MiB);
    expect(summary.stats.duplicateBytes).toBe(MiB);

    using reader = SnapshotReader.open(path);
    expect(reader.root).toBe(summary.root);
    expect(reader.header).toMatchObject({ runState: "running", labels: { a: "b" } });
    expect(reader.manifest).toEqual(manifest);
    expect(reader.stats).toEqual(summary.stats);
    expect(Buffer.compare(regionOf(reader, 7, memory.length), memory)).toBe(0);
    expect(regionOf(reader, 8, MiB).every((byte) => byte === 0)).toBe(true);
    expect(reader.extents(8)).toHaveLength(1);
    expect(Buffer.concat([...reader.deviceState(0)])).toEqual(Buffer.concat(new Array(40).fill(state)));
    expect(Buffer.concat([...reader.deviceState(1)])).toHaveLength((39 * 40) / 2);
    expect(Buffer.compare(reader.machineState() ?? new Uint8Array(), state.subarray(0, 100))).toBe(0);
    expect(reader.qemuStream()).toBeUndefined();
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(() => reader.deviceState(5)).toThrow("no state of device 5");
    expect(() => reader.extents(5)).toThrow("no memory region 5");
  });

  test("a later pass replaces parts of an earlier one", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    const memory = pages(64, 3);
    using writer = SnapshotWriter.toFile(path, headerFields);
    writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: memory.length, name: "ram" }]);
    await writer.writeMemory(0, 0, memory);
    for (let pass = 1; pass < 4; pass += 1) {
      expect(writer.nextMemoryPass()).toBe(pass);
      for (const at of [pass, 10 * pass, 40]) {
        const changed = pages(2, pass * 100 + at);
        memory.set(changed, at * PAGE);
        await writer.writeMemory(0, at * PAGE, changed);
      }
    }
    memory.fill(0, 50 * PAGE, 52 * PAGE);
    writer.writeHole(0, 50 * PAGE, 2 * PAGE);
    writer.writeManifest(manifest);
    writer.finish();
    using reader = SnapshotReader.open(path);
    expect(Buffer.compare(regionOf(reader, 0, memory.length), memory)).toBe(0);
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  });

  test("comes through a pipe", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    const script = `
      import { SnapshotWriter } from ${JSON.stringify(join(import.meta.dir, "../../../migrate/snapshot/mod.ts"))};
      const writer = SnapshotWriter.toFd(1, { writer: { name: "vhu", version: "0" } });
      writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: ${4 * MiB}, name: "ram" }]);
      await writer.writeMemory(0, 0, crypto.getRandomValues(new Uint8Array(65536)));
      writer.writeHole(0, 65536, ${4 * MiB - 65536});
      writer.writeManifest({ devices: [], memory: { totalBytes: 0 } });
      writer.finish();`;
    const fifo = join(folder.path, "fifo");
    expect(Bun.spawnSync(["mkfifo", fifo]).exitCode).toBe(0);
    const child = Bun.spawn(["sh", "-c", 'exec "$0" -e "$1" > "$2"', process.execPath, script, fifo]);
    const fd = openSync(fifo, "r");
    using reader = SnapshotReader.fromFd(fd, { spoolDirectory: folder.path });
    expect(await child.exited).toBe(0);
    closeSync(fd);
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
    expect(existsSync(path)).toBe(false);
  });

  test("both zstd back-ends read each other and never write beyond the target; neither adds a checksum", () => {
    const [addon, bun] = [createZstd(1), createZstd(1, "bun")];
    const plain = pages(16, 5);
    for (const [writer, reader] of [
      [addon, bun],
      [bun, addon],
    ] as const) {
      const room = new Uint8Array(frameBoundBytes(plain.length));
      const frame = room.subarray(0, writer.compress(room, plain));
      expect(((frame[4] as number) >> 2) & 1).toBe(0);
      const target = new Uint8Array(plain.length);
      reader.decompress(target, frame);
      expect(Buffer.compare(target, plain)).toBe(0);
      expect(() => reader.decompress(new Uint8Array(PAGE), frame)).toThrow();
      expect(() => reader.decompress(new Uint8Array(plain.length + 1), frame)).toThrow();
      expect(() => reader.decompress(target, frame.subarray(0, frame.length - 1))).toThrow();
    }
  });

  test("zstd's own checksum, which earlier versions wrote, is left to the xxh3", () => {
    const plain = pages(16, 5);
    const params = { [constants.ZSTD_c_checksumFlag]: 1, [constants.ZSTD_c_contentSizeFlag]: 1 };
    const target = new Uint8Array(plain.length);
    createZstd().decompress(target, zstdCompressSync(plain, { params }));
    expect(Buffer.compare(target, plain)).toBe(0);
  });

  test("a pipe that brings something else is refused after its first bytes", () => {
    const zero = openSync("/dev/zero", "r");
    expect(failureOf(() => SnapshotReader.fromFd(zero)).message).toContain("not a vhu snapshot");
    closeSync(zero);
  });

  test("a spool has a limit", () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    using writer = SnapshotWriter.toFile(path, headerFields);
    writer.writeManifest(manifest);
    writer.finish();
    expect(verifySnapshot(path)).toMatchObject({ ok: true });
    expect(readFileSync(path).length).toBeGreaterThan(100);
    const fd = openSync(path, "r");
    expect(failureOf(() => SnapshotReader.fromFd(fd, { maxBytes: 100 })).message).toContain("limit of 100");
    closeSync(fd);
  });
});
