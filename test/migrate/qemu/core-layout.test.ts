import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { importQemuFile, qemuCoreLayout } from "../../../migrate/qemu/mod.ts";
import { SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { CompatibilityError } from "../../../src/errors.ts";
import { failureOf } from "../snapshot/support.ts";

const folder = mkdtempSync(join(tmpdir(), "vhu-core-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const FIXTURE = join(import.meta.dir, "..", "..", "fixtures", "qemu-10.0.2-q35.stream.gz");

test("of a stream of QEMU's: the registers as it has them", async () => {
  const stream = join(folder, "q35.stream");
  writeFileSync(stream, gunzipSync(readFileSync(FIXTURE)));
  const path = join(folder, "q35.vhu");
  await importQemuFile(stream, path, { writer: { name: "vhu", version: "0" } });
  using reader = SnapshotReader.open(path);
  const { notes, segments, hasRegisters } = qemuCoreLayout(reader);
  expect(hasRegisters).toBe(true);
  expect(segments).toMatchObject([{ offset: 0, guestAddress: 0, sizeBytes: 128 << 20 }]);
  const view = Buffer.from(notes);
  expect(view.toString("latin1", 12, 16)).toBe("CORE");
  const register = (index: number) => view.readBigUInt64LE(20 + 112 + 8 * index);
  // rip, cs, rflags, rsp, as inspect --device cpu shows them.
  expect([16, 17, 18, 19].map(register)).toEqual([77210n, 8n, 582n, 663620n]);
  expect(notes.length).toBe(20 + 336 + 20 + 440);
});

test.each<[string, readonly string[], Record<string, unknown>, string]>([
  ["in several blocks", ["mem0", "mem1"], {}, "in several blocks: mem0, mem1"],
  ["beside a DIMM", ["pc.ram", "dimm0"], {}, "in several blocks: pc.ram, dimm0"],
  ["of which no block is RAM for sure", ["pc.bios", "0000:00:02.0/vga.vram"], {}, "no block"],
  ["of a machine that is no PC", ["mem"], { machineType: "virt-10.0" }, "virt-10.0 is no PC"],
  [
    "split elsewhere",
    ["mem"],
    { commandLine: ["qemu", "-machine", "q35,max-ram-below-4g=1G"] },
    "max-ram-below-4g",
  ],
])("memory %s is refused", (_name, blocks, more, message) => {
  const path = join(folder, "a.vhu");
  using writer = SnapshotWriter.toFile(path, { writer: { name: "vhu", version: "0" } });
  writer.writeMemoryMap(blocks.map((name, id) => ({ id, guestAddress: 0, sizeBytes: 4096, name })));
  for (const id of blocks.keys()) writer.writeHole(id, 0, 4096);
  const lists = { virtioDevices: [], sockets: [], disks: [] };
  const machine = {
    kind: "qemu",
    name: "m",
    machineType: "pc-q35-10.0",
    runState: "paused",
    ...lists,
    ...more,
  };
  writer.writeManifest({ machine, devices: [], memory: { totalBytes: 0 } });
  writer.finish();
  using reader = SnapshotReader.open(path);
  const error = failureOf(() => qemuCoreLayout(reader));
  expect(error).toBeInstanceOf(CompatibilityError);
  expect([error.code, error.message]).toEqual(["UNKNOWN_LAYOUT", expect.stringContaining(message)]);
  expect(error.message).toContain("--region");
});
