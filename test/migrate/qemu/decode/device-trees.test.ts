import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { StateTree } from "../../../../migrate/decode/mod.ts";
import { qemuDeviceTrees } from "../../../../migrate/qemu/mod.ts";
import { FormatError } from "../../../../src/errors.ts";
import { type DescribedDevice, describedStream, field } from "../../../support/described-stream.ts";
import { text8, u8, u16, u32, u64 } from "../../../support/qemu-stream.ts";

const REAL = Bun.gunzipSync(
  readFileSync(join(import.meta.dir, "../../../fixtures/qemu-10.0.2-q35.stream.gz")),
);

const treesOf = (
  devices: readonly DescribedDevice[],
  decodeBackendState?: (state: Uint8Array) => StateTree,
) =>
  qemuDeviceTrees(
    { qemuStream: () => [describedStream(devices)].values() as never },
    { decodeBackendState },
  )!;
const at = (tree: StateTree | undefined, ...path: string[]): StateTree | undefined =>
  path.reduce((inner, name) => inner?.children?.find((child) => child.name === name), tree);

test("a real machine's devices, as QEMU 10.0.2 describes them", () => {
  const trees = qemuDeviceTrees({ qemuStream: () => [REAL].values() as never })!;
  expect(trees.size).toBeGreaterThan(25);
  expect(at(trees.get("configuration"), "machine type")?.value).toBe("pc-q35-10.0");
  expect(trees.get("memory blocks")!.children!.map(({ name }) => name)).toContain("mem");
  expect(at(trees.get("cpu"), "env.regs")!.children).toHaveLength(16);
  expect(at(trees.get("dma#1"), "regs", "[3]", "now", "[0]")?.value).toBe(0);
  expect(at(trees.get("globalstate"), "runstate")?.note).toMatch(/^text "/);
  expect(at(trees.get("vmmouse"), "queue")?.children).toHaveLength(1024);
  expect(at(trees.get("0000:00:00.0/mch"), "parent_obj", "config[0]")?.bytes).toHaveLength(256);
  expect(at(trees.get("ps2kbd"), "parent_obj", "queue.rptr")?.value).toBe(0);
});

test("virtio's own layout: PCI, queues and subsections, in a real machine", () => {
  const trees = qemuDeviceTrees({ qemuStream: () => [REAL].values() as never })!;
  const net = at(trees.get("0000:00:02.0/virtio-net"), "virtio");
  expect(net?.children?.map(({ name }) => name)).toEqual([
    ...["PCI", "status", "interrupt status", "queue selector", "guest features (low)", "config", "queues"],
    ...["device", "virtio/64bit_features", "virtio/virtqueues", "virtio/extra_state"],
  ]);
  expect(at(net, "config")?.bytes?.subarray(0, 3)).toEqual(Uint8Array.of(0x52, 0x54, 0));
  expect(at(net, "queues")?.children).toHaveLength(3);
  expect(at(net, "queues", "[0]", "size")?.value).toBe(256);
  expect(at(net, "virtio/extra_state", "virtio_pci/modern_state", "queues")?.children).toHaveLength(3);
});

test("integers by sign and size, booleans, timers, NULL, lists and what is not known", () => {
  const [tree] = [
    treesOf([
      {
        name: "all",
        content: Buffer.concat([
          ...[u8(0xff), u8(0xff), u16(0xfffe), u32(0xffffffff), u64(2n ** 63n), u64(2n ** 64n - 1n)],
          ...[
            u8(1),
            u64(2n ** 64n - 1n),
            u64(7),
            u8(0x30),
            Buffer.from("hi\0\0"),
            u16(1),
            u16(2),
            u32(9),
            u8(5),
          ],
        ]),
        fields: [
          ...[
            field("a", "int8", 1),
            field("b", "uint8", 1),
            field("c", "int16", 2),
            field("d", "uint32 equal", 4),
          ],
          ...[field("e", "uint64", 8), field("f", "int64", 8), field("g", "bool", 1), field("h", "timer", 8)],
          ...[field("i", "timer", 8), field("j", "nullptr", 1), field("k", "buffer", 4)],
          ...[{ ...field("l", "uint16", 2), array_len: 2 }, field("m", "uint16", 4)],
          { ...field("n", "uint8", 1), index: 3 },
        ],
      },
    ]).get("all"),
  ];
  const shown = tree!.children!.map(({ name, value, note, bytes }) => [name, value ?? note ?? bytes?.length]);
  expect(shown).toEqual([
    ...[
      ["a", -1],
      ["b", 255],
      ["c", -2],
      ["d", 0xffffffff],
      ["e", 2n ** 63n],
      ["f", -1],
      ["g", true],
    ],
    ...[
      ["h", "a timer that is not armed"],
      ["i", 7],
      ["j", "nothing (NULL)"],
      ["k", 'text "hi"'],
    ],
    ...[
      ["l", "2 of uint16"],
      ["m", "uint16"],
      ["n[3]", 5],
    ],
  ]);
  expect(at(tree, "l", "[1]")?.value).toBe(2);
  expect(at(tree, "m")?.bytes).toHaveLength(4);
});

test("structs, subsections of structs, and a list whose elements have no description", () => {
  const inner = { vmsd_name: "s", version: 2, fields: [field("x", "uint8", 1)] };
  const sub = { vmsd_name: "dev/sub", version: 3, fields: [field("y", "uint16", 2)] };
  const head = Buffer.concat([u8(5), text8("dev/sub"), u32(3)]);
  const trees = treesOf([
    {
      name: "dev",
      content: Buffer.concat([u8(7), head, u16(8), u8(1), u8(9), u8(0)]),
      fields: [
        { ...field("s", "struct", 1 + head.length + 2), struct: { ...inner, subsections: [sub] } },
        { ...field("q", "qtailq", 3), ...inner },
      ],
    },
  ]);
  expect(at(trees.get("dev"), "s", "x")?.value).toBe(7);
  expect(at(trees.get("dev"), "s", "dev/sub", "y")?.value).toBe(8);
  expect(at(trees.get("dev"), "s", "dev/sub")?.note).toBe("subsection, version 3");
  expect(at(trees.get("dev"), "q")).toEqual({
    name: "q",
    bytes: Buffer.of(1, 9, 0) as never,
    note: "qtailq",
  });
});

const blob = (...pieces: Buffer[]) =>
  Buffer.concat([...pieces.flatMap((piece) => [u32(piece.length), piece]), u32(0)]);

test("a back-end's state is joined from its pieces, and given to the decoder", () => {
  const content = blob(Buffer.from("one"), Buffer.from("two"));
  const device = (bytes: Buffer): DescribedDevice => ({
    name: "fs",
    content: bytes,
    fields: [field("back-end", "virtio-fs back-end state", bytes.length)],
  });
  const decoded: StateTree = { name: "decoded", value: 1 };
  const seen: string[] = [];
  const tree = treesOf([device(content)], (state) => {
    seen.push(Buffer.from(state).toString());
    return decoded;
  }).get("fs");
  expect(seen).toEqual(["onetwo"]);
  expect(Buffer.from(at(tree, "back-end", "back-end state")!.bytes!).toString()).toBe("onetwo");
  expect(at(tree, "back-end", "decoded")).toEqual(decoded);
  // A length from the file that is longer than the file, and a decoder that refuses: both are said.
  const cut = treesOf([device(Buffer.concat([u32(0xffffffff), Buffer.from("x")]))]).get("fs");
  expect(at(cut, "back-end")?.note).toContain("4294967295 bytes are wanted");
  const refused = treesOf([device(content)], () => {
    throw new FormatError("no", "state");
  });
  expect(at(refused.get("fs"), "back-end", "decoded")?.note).toContain("no");
});

test("the state of a network back-end is found inside the section that QEMU does not describe", () => {
  const head = Buffer.concat([u8(5), text8("virtio-net-device/backend"), u32(0)]);
  const config = Buffer.alloc(256);
  config.writeUInt16LE(0x1af4);
  const content = Buffer.concat([
    ...[u32(2), config, u32(0), u32(0), u32(0), u32(0)],
    ...[u8(0xf), u8(1), u16(0), u32(3), u32(2), Buffer.from("mc"), u32(1)],
    ...[u32(256), u64(0x1000), u16(77), Buffer.from("own"), head, blob(Buffer.from("passt"))],
    ...[u8(5), text8("virtio/started"), u32(1), u8(1)],
  ]);
  const device = { name: "n", content, fields: [field("virtio", "virtio", content.length)] };
  const tree = at(treesOf([device]).get("n"), "virtio");
  expect(at(tree, "queues", "[0]", "last available index")?.value).toBe(77);
  expect(at(tree, "status")?.note).toBe("ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK");
  expect(Buffer.from(at(tree, "device")!.bytes!).toString()).toBe("own");
  const backend = at(tree, "virtio-net-device/backend", "back-end state");
  expect(Buffer.from(backend!.bytes!).toString()).toBe("passt");
  expect(at(tree, "virtio/started")?.value).toBe(1);
  // Damaged, it is bytes.
  const damaged = Buffer.from(content);
  damaged.writeUInt32BE(70_000, 4 + 256 + 16 + 8);
  const other = at(treesOf([{ ...device, content: damaged }]).get("n"), "virtio");
  expect(other?.note).toContain("70000 config bytes");
  expect(other?.bytes).toHaveLength(content.length);
});

test("names are only text: paths, control characters, long ones, and the same one twice", () => {
  const device = (name: string) => ({ name, content: Buffer.of(1), fields: [field("x", "uint8", 1)] });
  const names = ["../../etc/passwd", "\u001b[2J", "n".repeat(255), "configuration", "twice", "twice"];
  const trees = treesOf(names.map(device));
  expect([...trees.keys()].slice(3)).toEqual([
    ...names.slice(0, 3),
    "configuration (2)",
    "twice",
    "twice (2)",
  ]);
});

test("a description that promises millions of fields is not believed to the end", () => {
  const many = { ...field("x", "struct", 0), array_len: 2 ** 40, struct: { fields: [] } };
  const trees = treesOf([{ name: "d", content: Buffer.of(), fields: [many] }]);
  expect(at(trees.get("d"), "x")?.note).toContain("1099511627776 of struct");
  const lists = Array.from({ length: 400 }, () => ({ ...field("y", "uint16", 2), array_len: 4096 }));
  const big = treesOf([{ name: "d", content: Buffer.alloc(400 * 8192), fields: lists }]).get("d")!;
  expect(
    big.children!.some(({ note }) => note === "too many fields to be shown" || note?.includes("bytes each")),
  ).toBe(true);
});
