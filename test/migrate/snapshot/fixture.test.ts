import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { validateHeader } from "../../../migrate/snapshot/manifest.ts";
import { SNAPSHOT_VERSION, SnapshotReader } from "../../../migrate/snapshot/mod.ts";
import { decodeState } from "../../../src/state/mod.ts";
import { annotate, dumpInPage } from "../../fixtures/annotate-snapshot.ts";
import { fixture, writeFixture } from "../../fixtures/make-snapshot.ts";
import { formatFailureOf, temporaryFolder } from "./support.ts";

function expectFixture(path: string, version: number): void {
  using reader = SnapshotReader.open(path);
  expect(reader.formatVersion).toBe(version);
  expect(reader.verify({ deep: true })).toMatchObject({ ok: true, recordCount: 8 });
  expect(reader.header).toMatchObject({ id: "6f0f3a52-9c8e-4f57-8d0c-2a1f6b1c0e11", runState: "suspended" });
  const cpu = version === 0 ? "unknown" : "a CPU";
  expect(reader.header).toMatchObject({ host: { kernel: "6.18.0", cpu }, labels: { purpose: "fixture" } });
  expect(reader.memoryMap.map(({ sizeBytes }) => sizeBytes)).toEqual(fixture.regionBytes);
  const { first, second, replaced } = fixture.pages;
  const low = [...reader.memory(0)].map((piece) =>
    "bytes" in piece ? Buffer.from(piece.bytes) : piece.sizeBytes,
  );
  expect(low).toEqual([Buffer.from(first), Buffer.from(replaced), 62 * 4096]);
  const high = [...reader.memory(1)].map((piece) =>
    "bytes" in piece ? Buffer.from(piece.bytes) : piece.sizeBytes,
  );
  expect(high).toEqual([Buffer.concat([first, second])]);
  expect(reader.extents(1)[0]?.kind).toBe("duplicate");
  const state = decodeState(reader.deviceState(0));
  expect(state.sections.get("config")).toEqual({ columns: 80, rows: 25 });
  expect(Buffer.from(reader.machineState() ?? []).toString()).toBe(`machine state of version ${version}`);
  expect(reader.manifest.devices[0]).toMatchObject({ name: "console0", features: "0x140000000" });
}

describe("every version", () => {
  test.each([...fixture.paths.entries()])("%d: the stored file loads", (version, path) => {
    expectFixture(path, version);
  });

  test("what is written today loads the same", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    await writeFixture(path);
    expectFixture(path, SNAPSHOT_VERSION);
  });

  test("the dump in docs/snapshot-format.md is that of the stored file", () => {
    expect(dumpInPage()).toBe(annotate(readFileSync(fixture.paths[1]!)));
  });

  test("a header of version 0 without host and labels is read with both", () => {
    const least = { writer: { name: "vhu", version: "0" }, createdAt: "now", id: "1" };
    const json = new TextEncoder().encode(JSON.stringify(least));
    const host = { kernel: "unknown", architecture: "unknown", cpu: "unknown" };
    expect(validateHeader(json, 0)).toEqual({ ...least, host, labels: {} });
    expect(formatFailureOf(() => validateHeader(json, 1)).message).toContain("host");
  });
});
