import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { ROOT } from "../support/source-files.ts";
import { runVhu } from "./run-vhu.ts";

const FIXTURE = join("test", "fixtures", "snapshot-v1.vhu");

/** The fixture after `change`, in a folder of its own. */
function changed(change: (bytes: Uint8Array) => Uint8Array | undefined): Disposable & { path: string } {
  const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
  const path = join(folder, "changed.vhu");
  const bytes = new Uint8Array(readFileSync(join(ROOT, FIXTURE)));
  writeFileSync(path, change(bytes) ?? bytes);
  return { path, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

/** The summary, after the status lines. */
function lastDocument(stdout: string): unknown {
  return JSON.parse(stdout.trim().split("\n").at(-1) as string);
}

function offsetOf(typeName: string): number {
  using reader = SnapshotReader.open(join(ROOT, FIXTURE));
  return reader.records().find((record) => record.typeName === typeName)?.offset ?? -1;
}

test("inspect: 0, and a page", async () => {
  const { status, stdout, stderr } = await runVhu(["snapshot", "inspect", FIXTURE]);
  expect([status, stderr]).toEqual([0, ""]);
  for (const text of [
    "fixture: 1 device",
    'device 0: console "console0"',
    "VERSION_1",
    "DEVICE_STATE",
    "whole:",
  ]) {
    expect(stdout).toContain(text);
  }
  expect(stdout).toContain("██··");
});

test("inspect: 0, and a document; from a pipe too", async () => {
  const stdin = new Uint8Array(readFileSync(join(ROOT, FIXTURE)));
  const piped = await runVhu(["snapshot", "inspect", "-", "--json"], { stdin });
  expect([piped.status, piped.stderr]).toEqual([0, ""]);
  const document = JSON.parse(piped.stdout);
  expect(document.devices[0]).toMatchObject({
    type: "console",
    featureNames: ["PROTOCOL_FEATURES", "VERSION_1"],
  });
  expect(document.devices[0].state).toMatchObject({ format: "vhu-device-state", sizeBytes: 240 });
  expect(document.memory).toMatchObject({
    totalBytes: 264 * 1024,
    zeroBytes: 248 * 1024,
    duplicateBytes: 8192,
  });
  const fromFile = JSON.parse((await runVhu(["snapshot", "inspect", FIXTURE, "--json"])).stdout);
  // How much memory is free changes from one call to the next.
  expect({ ...fromFile, checks: [] }).toEqual({ ...document, checks: [] });
});

test("verify: 0, shallow and deep", async () => {
  for (const words of [[FIXTURE], ["--deep", FIXTURE]]) {
    const { status, stdout, stderr } = await runVhu(["snapshot", "verify", ...words]);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toContain(`${FIXTURE} is whole`);
  }
  const { stdout } = await runVhu(["snapshot", "verify", "--json", FIXTURE]);
  expect(lastDocument(stdout)).toMatchObject({ type: "summary", ok: true, recordCount: 8 });
});

test.each(["inspect", "verify"])("%s: 1 for a file that is not there", async (verb) => {
  const { status, stdout, stderr } = await runVhu(["snapshot", verb, "/nowhere/web.vhu"]);
  expect([status, stdout]).toEqual([1, ""]);
  expect(stderr).toContain("ENOENT (/nowhere/web.vhu)");
  expect(stderr).toContain("check the path");
});

test.each(["inspect", "verify"])("%s: 2 for an address of another kind", async (verb) => {
  const { status, stdout, stderr } = await runVhu(["snapshot", verb, "qmp:/run/web"]);
  expect([status, stdout]).toEqual([2, ""]);
  expect(stderr).toContain("give a file or -");
});

test.each(["inspect", "verify"])("%s: 3 for what is no snapshot", async (verb) => {
  const { status, stdout, stderr } = await runVhu(["snapshot", verb, "package.json"]);
  expect([status, stdout]).toEqual([3, ""]);
  expect(stderr).toBe("vhu: package.json: this is not a vhu snapshot (header, offset 0)\n");
});

test.each(["inspect", "verify"])("%s: 3 for a file that was cut off, with the place", async (verb) => {
  using file = changed((bytes) => bytes.subarray(0, bytes.length - 40));
  const { status, stderr } = await runVhu(["snapshot", verb, file.path, "--json"]);
  expect(status).toBe(3);
  expect(JSON.parse(stderr)).toMatchObject({ code: "FORMAT", exitStatus: 3, details: { section: "end" } });
});

test("inspect: 3 for a damaged manifest, verify: 3 for damaged memory, each with the place", async () => {
  const manifest = offsetOf("manifest");
  using first = changed((bytes) => {
    bytes[manifest + 40]! ^= 1;
    return undefined;
  });
  const inspected = await runVhu(["snapshot", "inspect", first.path]);
  expect(inspected.status).toBe(3);
  expect(inspected.stdout).toMatch(/manifest +LOST/);
  expect(inspected.stderr).toContain(`(manifest, offset ${manifest})`);
  const extents = offsetOf("extents");
  using second = changed((bytes) => {
    bytes[extents + 100]! ^= 1;
    return undefined;
  });
  const verified = await runVhu(["snapshot", "verify", second.path, "--json"]);
  expect(verified.status).toBe(3);
  const summary = lastDocument(verified.stdout);
  expect(summary).toMatchObject({
    type: "summary",
    ok: false,
    problems: [{ section: "extents", offset: extents }],
  });
  const text = await runVhu(["snapshot", "verify", second.path]);
  expect(text.stdout).toContain("is damaged in 1 place:");
});

test.each(["inspect", "verify"])("%s: 4 for a file that only a newer vhu reads", async (verb) => {
  using file = changed(withVersion);
  const { status, stdout, stderr } = await runVhu(["snapshot", verb, file.path]);
  expect([status, stdout]).toEqual([4, ""]);
  expect(stderr).toContain("use a newer vhu");
});

/** Format version 77, with a header checksum that is right. */
function withVersion(bytes: Uint8Array): undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(8, 77, true);
  const covered = 16 + view.getUint32(12, true);
  view.setBigUint64(covered, BigInt(Bun.hash.xxHash3(bytes.subarray(0, covered))), true);
}
