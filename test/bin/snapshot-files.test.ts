import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { runVhu } from "./run-vhu.ts";

const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const [v0, v1] = fixture.paths as [string, string];
const gdb = Bun.which("gdb");
if (gdb === null) console.error("skipped, gdb is missing: apt-get install gdb");
const at = (name: string) => join(folder, name);
const status = async (...words: string[]) => (await runVhu(["snapshot", ...words])).status;

test("convert: 0, also to and from an encrypted file; diff: 0 for what holds the same", async () => {
  const identity = await generateX25519Identity();
  writeFileSync(at("key"), `${identity}\n`);
  expect(await status("convert", v0, at("new.vhu"))).toBe(0);
  expect(
    await status("convert", "--encrypt-to", await identityToRecipient(identity), v0, at("safe.vhu")),
  ).toBe(0);
  expect(await status("diff", v0, at("new.vhu"))).toBe(0);
  expect(await status("diff", "--identity", at("key"), v0, at("safe.vhu"))).toBe(0);
  expect(await status("diff", v0, at("safe.vhu"))).toBe(4);
  expect(await status("convert", "--decrypt", "--identity", at("key"), at("safe.vhu"), at("open.vhu"))).toBe(
    0,
  );
  using reader = SnapshotReader.open(at("open.vhu"));
  expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  expect(await status("convert", "--encrypt-to", "nobody", v0, at("x.vhu"))).toBe(2);
  expect(await status("convert", at("key"), at("x.vhu"))).toBe(3);
  expect(await status("convert", at("safe.vhu"), at("x.vhu"))).toBe(4);
});

test("extract and replace: 0; diff: 6, and names the device", async () => {
  expect(await status("extract", "--device", "console0", v1, at("state"))).toBe(0);
  expect(Buffer.compare(readFileSync(at("state")), fixture.deviceState)).toBe(0);
  writeFileSync(at("state"), "something else");
  expect(await status("replace", "--device", "console0", "--state", at("state"), v1, at("other.vhu"))).toBe(
    0,
  );
  const diff = await runVhu(["snapshot", "diff", v1, at("other.vhu")]);
  expect(diff.status).toBe(6);
  expect(diff.stdout).toContain("device console0: stateSha256");
  expect(await status("replace", "--device", "no", "--state", at("state"), v1, at("x.vhu"))).toBe(2);
  expect(await status("replace", "--device", "console0", "--state", at("nothing"), v1, at("x.vhu"))).toBe(1);
});

test("extract: 0 for memory, raw and as a core file; 2 for nothing to extract; 3 for damage", async () => {
  expect(await status("extract", "--region", "ram", v1, at("ram"))).toBe(0);
  const { first, replaced } = fixture.pages;
  const ram = readFileSync(at("ram"));
  expect(ram.length).toBe(fixture.regionBytes[0]!);
  expect(Buffer.compare(ram.subarray(0, 8192), Buffer.concat([first, replaced]))).toBe(0);
  expect(await status("extract", "--core", v1, at("core"))).toBe(0);
  const core = readFileSync(at("core"));
  expect(core.subarray(0, 4).toString("latin1")).toBe("\x7fELF");
  // Notes come first, then the regions.
  const high = 64 + 2 * 56;
  const [fileOffset, address] = [core.readBigUInt64LE(high + 8), core.readBigUInt64LE(high + 16)];
  expect(address).toBe(0x1_0000_0000n);
  expect(Buffer.compare(core.subarray(Number(fileOffset), Number(fileOffset) + 4096), first)).toBe(0);
  expect(await status("extract", v1, at("x"))).toBe(2);
  expect(await status("extract", "--region", "no", v1, at("x"))).toBe(2);
  expect(await status("extract", "--core", at("core"), at("x"))).toBe(3);
});

test.skipIf(gdb === null)("a core file is one for gdb: memory by guest addresses, and a thread", async () => {
  expect(await status("extract", "--core", v1, at("gdb.core"))).toBe(0);
  const words = [
    "-batch",
    "-nx",
    "-ex",
    "x/10cb 0x100000000",
    "-ex",
    "info threads",
    `--core=${at("gdb.core")}`,
  ];
  const ran = Bun.spawnSync([gdb ?? "", ...words]);
  const text = ran.stdout.toString();
  expect([...text.matchAll(/'(.)'/g)].map(([, character]) => character).join("")).toStartWith("vhu writes");
  expect(text).toContain("process 1");
});

test("stats: 0 with sums, 3 for what is no snapshot", async () => {
  const stats = await runVhu(["snapshot", "stats", v1, "--json"]);
  expect(JSON.parse(stats.stdout)).toMatchObject({
    dataBytes: 8192,
    records: { deviceState: { count: 1 }, end: { count: 1, sizeBytes: 64 } },
    memory: { duplicate: { count: 1, sizeBytes: 8192 } },
  });
  expect((await runVhu(["snapshot", "stats", v1])).stdout).toContain("memory that is");
  writeFileSync(at("none"), "no snapshot at all");
  expect(await status("stats", at("none"))).toBe(3);
});

test("list: 0 with what is there, 1 without the folder", async () => {
  expect(await status("convert", v1, at("c.vhu"))).toBe(0);
  const list = await runVhu(["snapshot", "list", folder, "--json"]);
  expect(list.status).toBe(0);
  const { snapshots } = JSON.parse(list.stdout);
  expect(snapshots.find(({ name }: { name: string }) => name === "c.vhu")).toMatchObject({
    machine: "fixture",
    kind: "full",
  });
  expect(await status("list", at("nowhere"))).toBe(1);
});

test("list: 0, and says what is damaged and what is no file at all", async () => {
  const odd = at("odd");
  mkdirSync(join(odd, "folder.vhu"), { recursive: true });
  symlinkSync("loop.vhu", join(odd, "loop.vhu"));
  Bun.spawnSync(["mkfifo", join(odd, "pipe.vhu")]);
  writeFileSync(join(odd, "cut.vhu"), readFileSync(v1).subarray(0, 2000));
  const list = await runVhu(["snapshot", "list", odd, "--json"]);
  expect(list).toMatchObject({ status: 0, stderr: "" });
  const { snapshots } = JSON.parse(list.stdout) as {
    snapshots: { name: string; kind: string; sizeBytes: number }[];
  };
  expect(snapshots.map(({ name, kind, sizeBytes }) => [name, kind.split(":")[0], sizeBytes])).toEqual([
    ["cut.vhu", "damaged", 2000],
    ["folder.vhu", "cannot be read", 0],
    ["loop.vhu", "cannot be read", 0],
    ["pipe.vhu", "cannot be read", 0],
  ]);
});
