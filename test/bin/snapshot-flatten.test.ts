import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { runVhu } from "./run-vhu.ts";

const SIZE = 256 * 1024;

/** base.vhu, and child.vhu on top of it. */
async function chain(): Promise<
  Disposable & { readonly base: string; readonly child: string; readonly folder: string }
> {
  const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
  const [base, child] = [join(folder, "base.vhu"), join(folder, "child.vhu")];
  const memory = new Uint8Array(SIZE).map((_, at) => at >> 8);
  const write = async (path: string, below?: SnapshotReader) => {
    using writer = SnapshotWriter.toFile(
      path,
      { writer: { name: "vhu", version: "0" }, machine: { name: "m" } },
      { base: below },
    );
    writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
    await writer.writeMemory(0, 0, memory);
    writer.writeManifest({ devices: [], memory: { totalBytes: SIZE } });
    writer.finish();
  };
  await write(base);
  memory.fill(9, 8192, 12288);
  using reader = SnapshotReader.open(base);
  await write(child, reader);
  return { base, child, folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

test("flatten: 0, and a file that needs no other; inspect and verify know the chain", async () => {
  using files = await chain();
  const inspect = await runVhu(["snapshot", "inspect", files.child]);
  expect(inspect.stdout).toContain("based on");
  expect(inspect.stdout).toContain("░");
  expect((await runVhu(["snapshot", "verify", "--deep", files.child])).status).toBe(0);
  const diff = await runVhu(["snapshot", "diff", files.base, files.child]);
  expect([diff.status, diff.stdout]).toEqual([6, "memory ram: 4 KiB in 1 ranges\n  0x2000…0x3000\n"]);
  const full = join(files.folder, "full.vhu");
  const flatten = await runVhu(["snapshot", "flatten", files.child, full]);
  expect([flatten.status, flatten.stderr]).toEqual([0, ""]);
  rmSync(files.base);
  expect((await runVhu(["snapshot", "verify", "--deep", full])).status).toBe(0);
});

test("flatten: 4 where the base is missing, 0 where it is named, 3 where it is damaged", async () => {
  using files = await chain();
  const [away, full] = [join(files.folder, "away.bak"), join(files.folder, "full.vhu")];
  renameSync(files.base, away);
  const missing = await runVhu(["snapshot", "flatten", files.child, full]);
  expect(missing.status).toBe(4);
  expect(missing.stderr).toContain("base.vhu");
  expect(existsSync(full)).toBe(false);
  expect((await runVhu(["snapshot", "flatten", "--parent", away, files.child, full])).status).toBe(0);
  const bytes = readFileSync(away);
  using reader = SnapshotReader.open(away);
  bytes[(reader.extents(0)[0]?.frame?.offset ?? 0) + 20]! ^= 1;
  writeFileSync(away, bytes);
  expect((await runVhu(["snapshot", "flatten", "--parent", away, files.child, full])).status).toBe(3);
});
