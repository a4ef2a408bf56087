import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader, SnapshotWriter, verifySnapshot } from "../../../migrate/snapshot/mod.ts";
import { fixture } from "../../fixtures/make-snapshot.ts";
import { formatFailureOf, headerFields, MiB, manifest, pages } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "vhu-damage-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const damaged = join(folder, "damaged.vhu");

/** Some 100 KiB with everything in it. */
async function realSnapshot(): Promise<Buffer> {
  const path = join(folder, "real.vhu");
  using writer = SnapshotWriter.toFile(path, headerFields);
  writer.writeMemoryMap([{ id: 0, guestAddress: 0x8000_0000, sizeBytes: 4 * MiB, name: "ram" }]);
  const memory = new Uint8Array(4 * MiB);
  memory.set(pages(256), 0);
  memory.set(pages(20, 4), 2 * MiB);
  memory.set(memory.subarray(0, MiB), 3 * MiB);
  await writer.writeMemory(0, 0, memory);
  writer.nextMemoryPass();
  await writer.writeMemory(0, 4096, pages(3, 11));
  const state = writer.writeDeviceState(2);
  state.write(crypto.getRandomValues(new Uint8Array(5000)));
  state.finish();
  writer.writeMachineState(pages(1, 8));
  writer.writeManifest(manifest);
  writer.finish();
  return readFileSync(path);
}

/** The place of what is found in `bytes`; fails if they are taken for whole. */
function placeOfDamage(bytes: Uint8Array): string {
  writeFileSync(damaged, bytes);
  const result = verifySnapshot(damaged, { deep: true });
  if (result.ok) throw new Error("the damage was not found");
  const [problem] = result.problems;
  expect(problem?.section).not.toBe("");
  return problem?.section ?? "";
}

/** Reads everything; throws at the first damage. */
function readAll(path: string): void {
  using reader = SnapshotReader.open(path);
  for (const { id } of reader.memoryMap) for (const piece of reader.memory(id)) void piece;
  for (const { streamId, type } of reader.streams)
    if (type === 4) for (const chunk of reader.deviceState(streamId)) void chunk;
  reader.machineState();
}

describe("damage is found", () => {
  const small = readFileSync(fixture.paths[1]!);
  let real: Buffer;
  beforeAll(async () => {
    real = await realSnapshot();
  });

  test("at every truncation of a small file", () => {
    for (let length = 0; length < small.length; length += 1) {
      writeFileSync(damaged, small.subarray(0, length));
      formatFailureOf(() => SnapshotReader.open(damaged));
    }
  });

  test("at 500 truncations of a larger one", () => {
    for (let index = 0; index < 500; index += 1) {
      writeFileSync(damaged, real.subarray(0, Math.floor((real.length * index) / 500)));
      formatFailureOf(() => SnapshotReader.open(damaged));
    }
  });

  test("at every byte of a small file that is flipped", () => {
    for (let at = 0; at < small.length; at += 1) {
      const bytes = Uint8Array.from(small);
      bytes[at]! ^= 1 << (at % 8);
      placeOfDamage(bytes);
    }
  });

  test("at 400 seeded flips in a larger one, and named by its place (10,000 in the soaks)", () => {
    let seed = 20_261_123;
    const places = new Map<string, number>();
    for (let index = 0; index < 400; index += 1) {
      seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
      const bytes = Uint8Array.from(real);
      bytes[seed % real.length]! ^= 1 << (index % 8);
      const place = placeOfDamage(bytes);
      places.set(place, (places.get(place) ?? 0) + 1);
    }
    expect([...places.keys()]).toContain("extents");
    expect([...places.keys()]).toContain("device-state 2");
  });

  test("and no file stays open", () => {
    const openFiles = () => readdirSync("/proc/self/fd").length;
    const before = openFiles();
    for (let at = 0; at < small.length; at += 50) {
      const bytes = Uint8Array.from(small);
      bytes[at]! ^= 1;
      placeOfDamage(bytes);
    }
    expect(openFiles()).toBe(before);
  });

  test("by reading alone, where it is in memory or in a state", () => {
    writeFileSync(damaged, real);
    using reader = SnapshotReader.open(damaged);
    for (const extent of reader.extents(0)) {
      if (extent.frame === undefined) continue;
      const bytes = Uint8Array.from(real);
      bytes[extent.frame.offset + (extent.frame.sizeBytes >> 1)]! ^= 0x10;
      writeFileSync(damaged, bytes);
      expect(formatFailureOf(() => readAll(damaged)).section).toContain("memory region 0");
    }
    for (const entry of reader.records()) {
      if (entry.typeName !== "deviceState") continue;
      const bytes = Uint8Array.from(real);
      bytes[entry.offset + 60]! ^= 1;
      writeFileSync(damaged, bytes);
      expect(formatFailureOf(() => readAll(damaged)).section).toBe("device-state 2");
    }
  });

  test("and says which memory is hit, by guest address", () => {
    writeFileSync(damaged, real);
    using reader = SnapshotReader.open(damaged);
    const messageAfter = (at: number) => {
      const bytes = Uint8Array.from(real);
      bytes[at]! ^= 1;
      writeFileSync(damaged, bytes);
      const result = verifySnapshot(damaged);
      return result.ok ? "" : (result.problems[0]?.message ?? "");
    };
    const frames = reader.extents(0).filter(({ frame }) => frame !== undefined);
    const last = frames.find(({ offset }) => offset === 2 * MiB)!;
    expect(messageAfter(last.frame!.offset + 5)).toEndWith("; memory hit: memory ram 0x80200000…0x80214000");
    const records = reader.records();
    const extents = records.find(({ typeName }) => typeName === "extents")!;
    expect(messageAfter(extents.offset + 24 + 8 + 8)).toContain("memory hit: none");
  });

  test("where bytes follow the end, or a file is put after another", () => {
    placeOfDamage(Buffer.concat([small, Uint8Array.of(0)]));
    placeOfDamage(Buffer.concat([small, small]));
    placeOfDamage(new Uint8Array(0));
  });
});
