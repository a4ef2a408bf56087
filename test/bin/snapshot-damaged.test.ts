import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { runVhu } from "./run-vhu.ts";

const source = fixture.paths[1]!;
const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function damaged(name: string, ...typeNames: string[]): string {
  const bytes = new Uint8Array(readFileSync(source));
  using reader = SnapshotReader.open(source);
  for (const typeName of typeNames) {
    bytes[reader.records().find((record) => record.typeName === typeName)!.offset + 33]! ^= 1;
  }
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

test("inspect: 3, and what can be believed of a file whose index is lost; from a pipe the same", async () => {
  const path = damaged("index.vhu", "index", "extents");
  const page = await runVhu(["snapshot", "inspect", path]);
  expect(page.status).toBe(3);
  for (const text of [
    "a DAMAGED snapshot",
    "fixture, suspended",
    "1 device",
    "console0",
    "LOST: 256 KiB",
    "????",
  ]) {
    expect(page.stdout).toContain(text);
  }
  expect(page.stderr).toContain("the checksum of the record does not match (index, offset");
  const stdin = new Uint8Array(readFileSync(path));
  const piped = await runVhu(["snapshot", "inspect", "-", "--json"], { stdin });
  expect(piped.status).toBe(3);
  expect(JSON.parse(piped.stderr)).toMatchObject({ code: "FORMAT", exitStatus: 3 });
  const document = JSON.parse(piped.stdout);
  expect(document).toMatchObject({ isDamaged: true, hasIndex: false, header: { runState: "suspended" } });
  expect(document.states).toMatchObject([{ name: "console0", isWhole: true }, { name: "machineState" }]);
  expect(document.memory[0]).toMatchObject({ name: "ram", lostBytes: 256 * 1024 });
});

test("inspect: 3, and all but the header where only that is damaged", async () => {
  const bytes = new Uint8Array(readFileSync(source));
  bytes[30]! ^= 1;
  const path = join(folder, "header.vhu");
  writeFileSync(path, bytes);
  const page = await runVhu(["snapshot", "inspect", path]);
  expect(page.status).toBe(3);
  expect(page.stdout).toMatch(/header +LOST/);
  expect(page.stdout).toMatch(/index, root +[0-9a-f]{64}/);
  expect(page.stdout).toMatch(/console0 +whole +240 B/);
});

test("verify: 3, and names the device and the memory", async () => {
  const path = damaged("parts.vhu", "deviceState");
  const bytes = new Uint8Array(readFileSync(path));
  using whole = SnapshotReader.open(source);
  bytes[whole.extents(0)[0]!.frame!.offset + 9]! ^= 1;
  writeFileSync(path, bytes);
  const text = await runVhu(["snapshot", "verify", path]);
  expect(text.status).toBe(3);
  expect(text.stdout).toContain("is damaged in 2 places:");
  expect(text.stdout).toMatch(/the state of device console0 at \d+: the checksum/);
  expect(text.stdout).toContain("memory hit: memory ram 0x0…0x");
});
