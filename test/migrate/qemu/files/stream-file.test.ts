import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { encodeLibvirtHead } from "../../../../migrate/qemu/files/libvirt-header.ts";
import { StreamFile } from "../../../../migrate/qemu/files/stream-file.ts";
import { exportQemuFile, importQemuFile, isQemuFile } from "../../../../migrate/qemu/mod.ts";
import { SnapshotReader, SnapshotWriter } from "../../../../migrate/snapshot/mod.ts";
import { collectStream } from "../../../support/collect-stream.ts";
import { mappedHeader, mappedStreamOf } from "../../../support/mapped-stream.ts";
import {
  type StreamModel,
  streamOf,
  streamParts,
  text8,
  u8,
  u16,
  u32,
  u64,
} from "../../../support/qemu-stream.ts";

const PAGE = 4096;
const bytes = (fill: number) => new Uint8Array(PAGE).fill(fill);
const model: StreamModel = {
  machineType: "pc-q35-10.0",
  blocks: [
    { name: "ram", sizeBytes: 70 * PAGE },
    { name: "../rom", sizeBytes: PAGE },
  ],
  passes: [
    [
      { block: 0, offset: 0, bytes: bytes(1) },
      { block: 0, offset: 69 * PAGE, bytes: bytes(2) },
      { block: 0, offset: 5 * PAGE },
      { block: 1, offset: 0, bytes: bytes(3) },
    ],
  ],
  devices: [
    { name: "cpu_common", instanceId: 0, content: new Uint8Array(60).fill(9) },
    { name: "cpu_common", instanceId: 1, content: new Uint8Array(4) },
  ],
};
const by = { writer: { name: "test", version: "1" } };
const image = { xml: "<domain><name>a</name></domain>", cookie: "<cookie/>", wasRunning: true };

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-files-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function fileOf(content: Uint8Array, name = "in"): string {
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
}

async function piecesOf(content: Uint8Array): Promise<Buffer> {
  using file = StreamFile.open(fileOf(content));
  const pieces: Uint8Array[] = [];
  for await (const piece of file.pieces()) pieces.push(piece.slice());
  return Buffer.concat(pieces);
}

/** By number of its format, and the bytes behind the head. */
function libvirtFile(format: number, stream: Uint8Array): Buffer {
  const head = Buffer.from(encodeLibvirtHead(image));
  head.writeUInt32LE(format, 28);
  return Buffer.concat([head, stream]);
}

test("a mapped-ram file is read as the sequential stream of the same memory and devices", async () => {
  const sequential = collectStream(streamOf(model));
  const mapped = collectStream(await piecesOf(mappedStreamOf(model)));
  const { start } = streamParts(model);
  expect(mapped.parsed.blocks).toEqual(sequential.parsed.blocks);
  expect(mapped.parsed.vmdesc).toEqual(sequential.parsed.vmdesc);
  expect(Buffer.from(mapped.parsed.rest).includes(start)).toBe(true);
  // A page that was sent as zeros is one that the file holds, of zeros.
  const [ram, rom] = [mapped.memory.get("0:0"), mapped.memory.get("1:0")];
  expect([ram, rom]).toEqual([bytes(1), bytes(3)]);
  expect([...mapped.memory.keys()].sort()).toEqual([...sequential.memory.keys()].sort());
});

test("what libvirt wrote: raw, gzip, zstd and sparse are unpacked, the others refused by name", async () => {
  const stream = streamOf(model);
  for (const [format, packed] of [
    [0, stream],
    [1, gzipSync(stream)],
    [5, zstdCompressSync(stream)],
  ] as const) {
    expect(Buffer.compare(await piecesOf(libvirtFile(format, packed)), stream)).toBe(0);
  }
  const base = encodeLibvirtHead(image).length;
  const sparse = collectStream(await piecesOf(libvirtFile(6, mappedStreamOf(model, { base }))));
  expect(sparse.memory.get("1:0")).toEqual(bytes(3));
  for (const [format, name] of [
    [2, "bzip2"],
    [3, "xz"],
    [4, "lzop"],
    [7, "in a way (7)"],
  ] as const) {
    expect(() => StreamFile.open(fileOf(libvirtFile(format, stream)))).toThrow(name);
  }
});

test("a real virsh save file of libvirt 9.0.0 (gzip, a machine of 16 MiB) becomes a snapshot, and one again", async () => {
  const real = Bun.gunzipSync(
    readFileSync(join(import.meta.dir, "../../../fixtures/libvirt-9.0.0-gzip.save.gz")),
  );
  const path = fileOf(real, "real.save");
  expect(isQemuFile(path)).toBe(true);
  const { machine } = await importQemuFile(path, join(dir, "real.vhu"), by);
  expect(machine).toMatchObject({
    ...{ name: "vhu-fixture", machineType: "pc-q35-10.0", cpuCount: 1, runState: "running" },
  });
  expect([machine.memoryBytes, machine.version, machine.commandLine]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  expect(machine.libvirt?.xml).toContain("<memory unit='KiB'>16384</memory>");
  expect(machine.libvirt?.cookie).toMatch(/^<cookie>/);
  using reader = SnapshotReader.open(join(dir, "real.vhu"));
  expect(reader.memoryMap.map(({ name, sizeBytes }) => [name, sizeBytes])).toContainEqual([
    "pc.ram",
    16 << 20,
  ]);
  expect(reader.verify({ deep: true }).ok).toBe(true);
  await exportQemuFile(reader, join(dir, "back.save"), "libvirt");
  await importQemuFile(join(dir, "back.save"), join(dir, "again.vhu"), by);
  using again = SnapshotReader.open(join(dir, "again.vhu"));
  expect(again.manifest.machine).toEqual(reader.manifest.machine);
  expect(Buffer.concat([...again.qemuStream()!])).toEqual(Buffer.concat([...reader.qemuStream()!]));
});

test("there and back, as each format: the same memory, the same bytes beside it", async () => {
  await importQemuFile(fileOf(streamOf(model)), join(dir, "a.vhu"), by);
  using first = SnapshotReader.open(join(dir, "a.vhu"));
  const rest = Buffer.concat([...first.qemuStream()!]);
  for (const format of ["qemu", "qemu-mapped-ram"] as const) {
    const path = join(dir, format);
    await exportQemuFile(first, path, format);
    await importQemuFile(path, `${path}.vhu`, by);
    using second = SnapshotReader.open(`${path}.vhu`);
    // The return path is not asked for in a file.
    expect(Buffer.concat([...second.qemuStream()!]).length).toBe(rest.length - 14);
    for (const { id, sizeBytes } of first.memoryMap) expect(contentOf(second, id)).toHaveLength(sizeBytes);
    expect(first.memoryMap.map(({ id }) => contentOf(first, id))).toEqual(
      second.memoryMap.map(({ id }) => contentOf(second, id)),
    );
  }
  await expect(exportQemuFile(first, join(dir, "no"), "libvirt")).rejects.toThrow("no XML for libvirt");
});

function contentOf(reader: SnapshotReader, regionId: number): Buffer {
  return Buffer.concat(
    [...reader.memory(regionId)].map((piece) =>
      "bytes" in piece ? piece.bytes.slice() : Buffer.alloc(piece.sizeBytes),
    ),
  );
}

test("a snapshot of another kind of machine is not written as QEMU's", async () => {
  const path = join(dir, "native.vhu");
  using writer = SnapshotWriter.toFile(path, { ...by, labels: {} } as never);
  writer.writeMemoryMap([]);
  writer.writeManifest({ machine: { name: "x" }, devices: [], memory: { totalBytes: 0 } });
  writer.finish();
  using reader = SnapshotReader.open(path);
  await expect(exportQemuFile(reader, join(dir, "out"), "qemu")).rejects.toThrow("no QEMU machine");
});

const { header, configuration, start } = streamParts(model);
const page = (flags: number) => Buffer.concat([u8(3), u32(2), u64(flags), text8("ram")]);

test.each([
  ["XBZRLE pages", Buffer.concat([header, configuration, start, page(0x40), Buffer.alloc(99)]), "XBZRLE"],
  [
    "multifd's main channel",
    Buffer.concat([header, configuration, start, u8(2), u32(2), u64(0x200)]),
    "multifd",
  ],
  ["a channel of multifd", Buffer.concat([u32(0x11223344), u32(1), Buffer.alloc(56)]), "multifd"],
  ["post-copy", Buffer.concat([header, configuration, u8(8), u16(3), u16(0), start]), "post-copy"],
  ["x-ignore-shared", mappedStreamOf(model, { capabilities: ["x-ignore-shared"] }), "x-ignore-shared"],
  ["an old stream", Buffer.concat([u32(0x5145564d), u32(2), configuration, start]), "version 2"],
  ["a cut stream", streamOf(model).subarray(0, -5), "cut off"],
  ["a cut mapped-ram file", mappedStreamOf(model).subarray(0, -5), "cut off"],
  ["something else", Buffer.from("hello, world"), "neither a snapshot nor"],
  ["nothing", Buffer.alloc(0), "neither a snapshot nor"],
  [
    "gzip that is damaged",
    libvirtFile(1, gzipSync(streamOf(model)).subarray(0, -40)),
    "compressed stream is damaged",
  ],
  ["zstd that is none", libvirtFile(5, Buffer.from("no zstd at all")), "compressed stream is damaged"],
  [
    "a save that was cut off",
    Buffer.concat([Buffer.from("LibvirtQemudPart"), Buffer.alloc(90)]),
    "never finished",
  ],
  [
    "a save of version 1",
    Buffer.concat([Buffer.from("LibvirtQemudSave"), u32(1), Buffer.alloc(90)]),
    "version",
  ],
])("refused, and no file is left: %s", async (_, content, message) => {
  const target = join(dir, "never.vhu");
  await expect(importQemuFile(fileOf(content), target, by)).rejects.toThrow(message);
  expect(await Bun.file(target).exists()).toBe(false);
});

test.each([
  ["pages outside the file", () => mappedHeader(500, 2 ** 40)],
  [
    "pages over their own bitmap",
    ({ bitmapOffset }: { bitmapOffset: number }) => mappedHeader(bitmapOffset, bitmapOffset),
  ],
  [
    "a bitmap in front of its header",
    ({ pagesOffset }: { pagesOffset: number }) => mappedHeader(8, pagesOffset),
  ],
  ["an offset above 2^53", () => Buffer.concat([u32(1), u64(PAGE), u64(2n ** 60n), u64(2n ** 61n)])],
  [
    "another version",
    ({ bitmapOffset, pagesOffset }: { bitmapOffset: number; pagesOffset: number }) =>
      mappedHeader(bitmapOffset, pagesOffset, 2),
  ],
  [
    "pages of 64 KiB",
    ({ bitmapOffset, pagesOffset }: { bitmapOffset: number; pagesOffset: number }) =>
      mappedHeader(bitmapOffset, pagesOffset, 1, 65536),
  ],
])("a mapped-ram header is not believed: %s", async (_, header) => {
  const content = mappedStreamOf(model, { header });
  await expect(importQemuFile(fileOf(content), join(dir, "never.vhu"), by)).rejects.toThrow();
});

test("a virsh save header is not believed: lengths, offsets, texts without an end", () => {
  const broken = (edit: (head: Buffer) => void) => {
    const head = libvirtFile(0, streamOf(model));
    edit(head);
    return () => StreamFile.open(fileOf(head));
  };
  expect(broken((head) => head.writeUInt32LE(0xffffffff, 20))).toThrow("XML has 4294967295 bytes");
  expect(broken((head) => head.writeUInt32LE(0, 20))).toThrow("XML has 0 bytes");
  expect(broken((head) => head.writeUInt32LE(0xfffffff0, 32))).toThrow("cookie");
  expect(broken((head) => head.writeUInt32LE(4, 32))).toThrow("no end");
  expect(broken((head) => head.fill(0xff, 92, 100))).toThrow("no text");
  expect(broken((head) => head.writeUInt32LE(7 << 20, 20))).toThrow("ends early");
});

test("a head in the other byte order is read as well", () => {
  const head = libvirtFile(0, streamOf(model));
  for (let at = 16; at < 36; at += 4) head.writeUInt32BE(head.readUInt32LE(at), at);
  using file = StreamFile.open(fileOf(head));
  expect(file.libvirt).toMatchObject(image);
});

test("interrupted in the middle, neither way leaves a file", async () => {
  const pages = 5000;
  const large: StreamModel = {
    ...model,
    blocks: [{ name: "ram", sizeBytes: pages * PAGE }],
    passes: [
      Array.from({ length: pages }, (_, at) => ({
        block: 0,
        offset: at * PAGE,
        bytes: bytes(1 + (at % 255)),
      })),
    ],
  };
  const path = fileOf(streamOf(large));
  await importQemuFile(path, join(dir, "whole.vhu"), by);
  using reader = SnapshotReader.open(join(dir, "whole.vhu"));
  const interrupting = () => {
    const controller = new AbortController();
    const onProgress = () => controller.abort(new Error("interrupted"));
    return { signal: controller.signal, onProgress };
  };
  const target = join(dir, "never");
  await expect(importQemuFile(path, target, { ...by, ...interrupting() })).rejects.toThrow("interrupted");
  for (const format of ["qemu", "qemu-mapped-ram"] as const) {
    await expect(exportQemuFile(reader, target, format, interrupting())).rejects.toThrow("interrupted");
  }
  expect(await Bun.file(target).exists()).toBe(false);
});
