import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeLibvirtHead } from "../../migrate/qemu/files/libvirt-header.ts";
import { describedStream, field } from "../support/described-stream.ts";
import { type StreamModel, streamOf } from "../support/qemu-stream.ts";
import { runVhu } from "./run-vhu.ts";

const PAGE = 4096;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-sq-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const at = (name: string) => join(dir, name);
const vhu = (...words: string[]) => runVhu(["snapshot", ...words], { env: { XDG_STATE_HOME: at("state") } });

function fileOf(name: string, content: Uint8Array): string {
  writeFileSync(at(name), content);
  return at(name);
}

const cpu = (pc: number) =>
  describedStream([
    {
      name: "cpu_common",
      content: Buffer.of(0, 0, 0, pc, 1, 2),
      fields: [field("pc", "uint32", 4), { ...field("regs", "uint8", 1), array_len: 2 }],
    },
  ]);

test("convert: 0 from QEMU's files and libvirt's, and back; inspect and diff see into them", async () => {
  const image = { xml: "<domain><name>web</name></domain>", cookie: undefined, wasRunning: true };
  const save = fileOf("a.save", Buffer.concat([encodeLibvirtHead(image), cpu(1)]));
  expect(await vhu("convert", save, at("a.vhu"))).toMatchObject({ status: 0, stderr: "" });
  expect(await vhu("convert", fileOf("b.mig", cpu(7)), at("b.vhu"))).toMatchObject({ status: 0 });
  const page = await vhu("inspect", at("a.vhu"));
  expect(page.stdout).toContain("pc-q35-10.0, 1 × CPU; not known: QEMU's version, CPU model");
  expect(page.stdout).not.toContain("undefined");
  const tree = await vhu("inspect", "--device", "cpu_common", at("a.vhu"));
  expect(tree.stdout).toContain("├─ pc: 1\n└─ regs: 2 bytes: 0102 (2 of uint8, 1 bytes each)");
  const diff = await vhu("diff", at("a.vhu"), at("b.vhu"));
  expect([diff.status, diff.stdout]).toEqual([6, "state cpu_common: pc 1 became 7\n"]);
  const { states } = JSON.parse((await vhu("diff", "--json", at("a.vhu"), at("b.vhu"))).stdout);
  expect(states).toEqual([
    { device: "cpu_common", field: "pc", before: { name: "pc", value: 1 }, after: { name: "pc", value: 7 } },
  ]);
  const stdin = readFileSync(at("a.vhu"));
  expect((await runVhu(["snapshot", "convert", "-", at("piped.vhu")], { stdin })).status).toBe(0);
  expect((await vhu("diff", at("a.vhu"), at("piped.vhu"))).status).toBe(0);
  for (const format of ["libvirt", "qemu", "qemu-mapped-ram"]) {
    expect(await vhu("convert", "--to", format, at("a.vhu"), at(format))).toMatchObject({ status: 0 });
    await vhu("convert", at(format), at("again.vhu"));
    expect((await vhu("diff", at("a.vhu"), at("again.vhu"))).stdout).toBe("they hold the same\n");
  }
});

test("diff finds the blocks of QEMU's memory by their names, in whatever order they come", async () => {
  const bytes = (fill: number) => new Uint8Array(PAGE).fill(fill);
  const model: StreamModel = {
    machineType: "pc-q35-10.0",
    blocks: [
      { name: "ram", sizeBytes: 2 * PAGE },
      { name: "rom", sizeBytes: PAGE },
    ],
    passes: [
      [
        { block: 0, offset: PAGE, bytes: bytes(1) },
        { block: 1, offset: 0, bytes: bytes(2) },
      ],
    ],
    devices: [{ name: "d", instanceId: 0, content: Buffer.of(1) }],
  };
  const turned: StreamModel = {
    ...model,
    blocks: model.blocks.toReversed(),
    passes: [
      [
        { block: 1, offset: PAGE, bytes: bytes(1) },
        { block: 0, offset: 0, bytes: bytes(3) },
      ],
    ],
  };
  await vhu("convert", fileOf("a.mig", streamOf(model)), at("a.vhu"));
  await vhu("convert", fileOf("b.mig", streamOf(turned)), at("b.vhu"));
  const diff = await vhu("diff", at("a.vhu"), at("b.vhu"));
  expect(diff.status).toBe(6);
  expect(diff.stdout).toContain("memory rom: 4 KiB in 1 ranges");
  expect(diff.stdout).not.toContain("memory ram");
});

test("convert: 2 for what makes no sense, 3 for damage, 4 for a kind that cannot be converted; there is no target", async () => {
  const good = fileOf("good.mig", cpu(1));
  const status = async (...words: string[]) => (await vhu("convert", ...words)).status;
  expect(await status("--to", "qemu", good, at("no"))).toBe(2);
  expect(await status("--to", "tar", good, at("no"))).toBe(2);
  expect(await status(fileOf("cut.mig", cpu(1).subarray(0, -3)), at("no"))).toBe(3);
  expect(await status(fileOf("other", Buffer.from("something else")), at("no"))).toBe(3);
  await vhu("convert", good, at("good.vhu"));
  expect(await status("--to", "qemu", "--encrypt-passphrase-file", good, at("good.vhu"), at("no"))).toBe(2);
  const refused = await vhu("convert", "--to", "libvirt", at("good.vhu"), at("no"));
  expect(refused).toMatchObject({ status: 4 });
  expect(refused.stderr).toContain("no XML for libvirt");
  const packed = Buffer.from(encodeLibvirtHead({ xml: "<domain/>", cookie: undefined, wasRunning: false }));
  packed.writeUInt32LE(3, 28);
  const unknown = await vhu("convert", fileOf("xz.save", packed), at("no"));
  expect(unknown).toMatchObject({ status: 4 });
  expect(unknown.stderr).toContain("xz");
  expect(existsSync(at("no"))).toBe(false);
});
