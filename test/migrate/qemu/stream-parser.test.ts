import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { StreamParser } from "../../../migrate/qemu/stream-parser.ts";
import { rebuildStream } from "../../../migrate/qemu/stream-writer.ts";
import { CompatibilityError, FormatError } from "../../../src/errors.ts";
import { collectStream, joined } from "../../support/collect-stream.ts";
import {
  type StreamModel,
  streamOf,
  streamParts,
  text8,
  u8,
  u16,
  u32,
  u64,
} from "../../support/qemu-stream.ts";

const PAGE = 4096;
const model: StreamModel = {
  machineType: "pc-q35-10.0",
  blocks: [{ name: "ram", sizeBytes: 4 * PAGE }],
  passes: [[{ block: 0, offset: PAGE, bytes: new Uint8Array(PAGE).fill(7) }], [{ block: 0, offset: 0 }]],
  devices: [
    { name: "timer", instanceId: 0, content: new Uint8Array(24) },
    { name: "cpu", instanceId: 1, content: new Uint8Array(100).fill(9) },
  ],
};
const parts = streamParts(model);
const { header, configuration, commands, start, pages, devices, end } = parts;
const before = Buffer.concat([header, configuration, commands]);
const opened = Buffer.concat([before, start]);
const memoryDone = Buffer.concat([opened, ...pages]);

/** A PART section with these records. */
const part = (...records: Uint8Array[]) => Buffer.concat([opened, u8(2), u32(2), ...records]);
const tail = (json: unknown) => {
  const bytes = Buffer.from(JSON.stringify(json));
  return Buffer.concat([memoryDone, ...devices, u8(0), u8(6), u32(bytes.length), bytes]);
};
const describe = (change: object) =>
  tail({ devices: [{ name: "timer", instance_id: 0, size: 24, ...change }] });

const refused: readonly [string, Uint8Array, typeof FormatError | typeof CompatibilityError][] = [
  ["another magic", Buffer.from("LIBVIRT!"), FormatError],
  ["version 2", Buffer.concat([u32(0x5145564d), u32(2)]), CompatibilityError],
  ["no configuration", Buffer.concat([header, start]), FormatError],
  ["a machine type of 4 GiB", Buffer.concat([header, u8(7), u32(0xffffffff)]), FormatError],
  ["two configurations", Buffer.concat([header, configuration, configuration]), FormatError],
  [
    "capabilities",
    Buffer.concat([header, configuration, u8(5), text8("configuration/capabilities"), u32(1)]),
    CompatibilityError,
  ],
  [
    "16 KiB pages",
    Buffer.concat([header, configuration, u8(5), text8("configuration/target-page-bits"), u32(1), u32(14)]),
    CompatibilityError,
  ],
  ["a post-copy command", Buffer.concat([before, u8(8), u16(3), u16(8)]), CompatibilityError],
  ["a long command", Buffer.concat([before, u8(8), u16(2), u16(60000)]), FormatError],
  [
    "an iterative device",
    Buffer.concat([before, u8(1), u32(5), text8("vfio"), u32(0), u32(1)]),
    CompatibilityError,
  ],
  ["memory version 5", Buffer.concat([before, u8(1), u32(5), text8("ram"), u32(0), u32(5)]), FormatError],
  ["memory twice", Buffer.concat([opened, start]), FormatError],
  ["another section that goes on", Buffer.concat([opened, u8(2), u32(9)]), FormatError],
  [
    "a device before memory",
    Buffer.concat([before, u8(4), u32(1), text8("virtio-mem-early")]),
    CompatibilityError,
  ],
  ["a page outside its block", part(u64(4 * PAGE + 8), text8("ram"), new Uint8Array(PAGE)), FormatError],
  [
    "a page far outside",
    part(u64(0x7fff_ffff_ffff_f000n | 8n), text8("ram"), new Uint8Array(PAGE)),
    FormatError,
  ],
  ["a page of no block", part(u64(8), text8("../../etc/shadow")), FormatError],
  ["a page of the same block before any", part(u64(0x28), new Uint8Array(PAGE)), FormatError],
  ["XBZRLE", part(u64(0x40), text8("ram")), CompatibilityError],
  ["multifd", part(u64(0x200)), CompatibilityError],
  ["unknown flags", part(u64(0x800)), FormatError],
  ["a block list that is late", part(u64(PAGE | 4), text8("b"), u64(PAGE)), FormatError],
  [
    "blocks that do not sum up",
    Buffer.concat([before, start.subarray(0, 21), u64(PAGE | 4), text8("b"), u64(2 * PAGE)]),
    FormatError,
  ],
  [
    "a block of an odd size",
    Buffer.concat([before, start.subarray(0, 21), u64(PAGE | 4), text8("b"), u64(100)]),
    FormatError,
  ],
  [
    "a block of 2^60 bytes",
    Buffer.concat([before, start.subarray(0, 21), u64((1n << 60n) | 4n), text8("b"), u64(1n << 60n)]),
    FormatError,
  ],
  ["no footer", part(u64(0x10), u32(0), u8(0)), FormatError],
  ["an unknown section", Buffer.concat([memoryDone, u8(0x33)]), FormatError],
  ["no end", Buffer.concat([memoryDone, ...devices]), FormatError],
  ["a size that is a text", describe({ size: "24" }), FormatError],
  ["a size below 0", describe({ size: -1 }), FormatError],
  ["a size that is too large", describe({ size: 25 }), FormatError],
  ["a size that is too small", describe({ size: 23 }), FormatError],
  ["another name", describe({ name: "../timer" }), FormatError],
  ["another instance", describe({ instance_id: 1 }), FormatError],
  ["another version", describe({ version: 2 }), FormatError],
  ["a device too few", describe({}), FormatError],
  ["no list of devices", tail({ devices: {} }), FormatError],
  ["bytes after the end", Buffer.concat([streamOf(model), u8(0)]), FormatError],
];

test.each(refused)("refused: %s", (_, bytes, kind) => {
  expect(() => collectStream(bytes)).toThrow(kind);
  expect(() => collectStream(bytes, () => 1)).toThrow(kind);
});

test("a stream that is cut off anywhere is never taken for whole", () => {
  const whole = streamOf(model);
  for (let size = 0; size < whole.length; size += 1) {
    const parser = new StreamParser({ blocks: () => {}, page: () => {}, zeroPage: () => {} });
    parser.push(whole.subarray(0, size));
    expect(parser.complete()).toBeUndefined();
  }
});

test("a page of zeros that says its fill, and one that is filled with something else", () => {
  const bytes = Buffer.concat([
    part(u64(2), text8("ram"), u8(0), u64(PAGE | 0x22), u8(5), u64(0x10), u8(0x7e), u32(2)),
    ...[pages[1]!, ...devices, end],
  ]);
  const { memory } = collectStream(bytes);
  expect(memory.get("0:0")).toBe("zero");
  expect(memory.get(`0:${PAGE}`)).toEqual(new Uint8Array(PAGE).fill(5));
});

test("a background snapshot's memory, which has no end of its own, gets one", () => {
  // Both passes as PART sections, as QEMU's background-snapshot has them.
  const asParts = pages.map((bytes) => Buffer.concat([u8(2), bytes.subarray(1)]));
  const { memory, parsed } = collectStream(Buffer.concat([opened, ...asParts, ...devices, end]));
  expect(memory.size).toBe(2);
  const emptyEnd = Buffer.concat([u8(3), u32(2), u64(0x10), u8(0x7e), u32(2)]);
  expect(Buffer.from(parsed.rest)).toEqual(Buffer.concat([opened, emptyEnd, ...devices, end]));
  // What is kept is a stream that can be taken apart, and built up, again.
  expect(collectStream(parsed.rest).parsed.pagesOffset).toBe(parsed.pagesOffset);
});

// Made by QEMU 10.0.2: q35, 128 MiB, virtio-rng and virtio-net with slirp; without its pages.
const real = Bun.gunzipSync(readFileSync(join(import.meta.dir, "../../fixtures/qemu-10.0.2-q35.stream.gz")));

test("a stream of QEMU 10.0.2: each of its devices is where its description says", () => {
  const { parsed } = collectStream(real, () => 1000);
  expect(parsed.machineType).toBe("pc-q35-10.0");
  expect(parsed.blocks[0]).toEqual({ name: "mem", sizeBytes: 128 << 20 });
  expect(parsed.sections.map(({ name }) => name)).toContain("0000:00:02.0/virtio-net");
  expect(parsed.sections).toHaveLength(31);
  const rebuilt = joined(rebuildStream(parsed, () => []));
  expect(Buffer.compare(rebuilt, real)).toBe(0);
});
