import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { damagedPage } from "../../../bin/snapshot/damaged.ts";
import { describeDamage } from "../../../bin/snapshot/describe-damage.ts";
import {
  type Extent,
  newFileKey,
  type SalvagedSnapshot,
  SnapshotReader,
  SnapshotWriter,
  salvageSnapshot,
  unlockSnapshot,
} from "../../../migrate/snapshot/mod.ts";
import { CompatibilityError } from "../../../src/errors.ts";
import { containerCorpus, resealContainer } from "../../fuzz/container.ts";
import { mutate, randomNumbers } from "../../fuzz/mutate.ts";
import { pages } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "vhu-salvage-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const SIZE = 2 << 20;
const identity = await generateX25519Identity();
const keys = { identities: [identity] };

interface Sample {
  readonly bytes: Uint8Array;
  readonly truth: Pick<SalvagedSnapshot, "header" | "manifest" | "memoryMap" | "root">;
  readonly extents: readonly Extent[];
}

/** A file with several records of each kind, and what is in it. */
async function sampleOf(name: string, isEncrypted: boolean): Promise<Sample> {
  const path = join(folder, name);
  const fileKey = isEncrypted
    ? await newFileKey({ recipients: [await identityToRecipient(identity)] })
    : undefined;
  using writer = SnapshotWriter.toFile(
    path,
    { writer: { name: "vhu", version: "0" }, machine: { name: "m" }, labels: { a: "b" } },
    { fileKey },
  );
  writer.writeMemoryMap([
    { id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" },
    { id: 1, guestAddress: 1 << 30, sizeBytes: SIZE, name: "high" },
  ]);
  const memory = pages(SIZE / 4096);
  await writer.writeMemory(0, 0, memory);
  const state = writer.writeDeviceState(7);
  state.write(memory.subarray(0, (1 << 20) + 5));
  const { sizeBytes } = state.finish();
  await writer.writeMemory(1, 0, memory);
  writer.writeMachineState(new TextEncoder().encode("state"));
  const backend = { identity: "unknown" };
  const masks = { features: "0x0", protocolFeatures: "0x0" };
  writer.writeManifest({
    machine: { name: "m" },
    devices: [
      {
        id: 7,
        name: "d",
        type: "blk",
        backend,
        ...masks,
        queues: [],
        config: "",
        stateFormat: "",
        stateBytes: sizeBytes,
      },
    ],
    memory: { totalBytes: 2 * SIZE },
  });
  writer.finish();
  using reader = await unlockSnapshot(path, keys);
  const { header, manifest, memoryMap, root } = reader;
  return {
    bytes: new Uint8Array(readFileSync(path)),
    truth: { header, manifest, memoryMap, root },
    extents: memoryMap.flatMap(({ id }) => reader.extents(id)),
  };
}

const samples = [await sampleOf("plain.vhu", false), await sampleOf("sealed.vhu", true)];

async function salvage(bytes: Uint8Array, credentials = keys): Promise<SalvagedSnapshot | undefined> {
  const path = join(folder, "damaged.vhu");
  writeFileSync(path, bytes);
  const salvaged = await salvageSnapshot(path, credentials);
  if (salvaged !== undefined) {
    const lines = damagedPage(path, describeDamage(salvaged));
    // "received undefined" is what zod says of a field that is missing.
    expect(lines.some((line) => /(?<!received )undefined|NaN/.test(line))).toBe(false);
  }
  return salvaged;
}

test("of a whole file, everything is believed, and nothing is lost", async () => {
  for (const { bytes, truth, extents } of samples) {
    const salvaged = (await salvage(bytes))!;
    expect(salvaged).toMatchObject({ ...truth, problems: [], lostBytes: 0, isLocked: false });
    expect(salvaged.extents).toEqual(extents as Extent[]);
    expect(describeDamage(salvaged).states).toMatchObject([
      { name: "d", isWhole: true },
      { name: "machineState", hasGap: false },
    ]);
  }
});

test("without the index, records are looked for from the front; an encrypted file shows its records without a key", async () => {
  for (const [index, { bytes, truth, extents }] of samples.entries()) {
    const cut = bytes.subarray(0, bytes.length - 60);
    const salvaged = (await salvage(cut))!;
    expect(salvaged).toMatchObject({ header: truth.header, manifest: truth.manifest, root: undefined });
    expect(salvaged.extents).toEqual(extents as Extent[]);
    const locked = (await salvage(cut, { identities: [] }))!;
    expect(locked.isLocked).toBe(index === 1);
    expect(locked.records.length).toBe(salvaged.records.length);
  }
});

test("a part that is broken is lost by itself: memory by its range, a state by its device", async () => {
  const { bytes, truth } = samples[0]!;
  using reader = SnapshotReader.open(join(folder, "plain.vhu"));
  for (const typeName of ["extents", "deviceState", "manifest", "memoryMap", "index", "header"]) {
    const entry = reader.records().find((record) => record.typeName === typeName)!;
    const broken = new Uint8Array(bytes);
    broken[entry.offset + 30]! ^= 1;
    const salvaged = (await salvage(broken))!;
    const damage = describeDamage(salvaged);
    expect(salvaged.lostBytes).toBeGreaterThan(0);
    expect(salvaged.header === undefined).toBe(typeName === "header");
    expect(salvaged.manifest === undefined).toBe(typeName === "manifest");
    expect(salvaged.memoryMap === undefined).toBe(typeName === "memoryMap");
    expect(salvaged.root).toBe(typeName === "index" ? undefined : truth.root);
    if (typeName === "extents") expect(damage.memory[0]?.lostBytes).toBeGreaterThan(0);
    if (typeName === "deviceState") expect(damage.states[0]).toMatchObject({ name: "d", isWhole: false });
  }
});

test("nothing is believed that is not so, whatever is damaged", async () => {
  const random = randomNumbers(20261125);
  for (let count = 0; count < 200; count += 1) {
    const { bytes, truth, extents } = samples[count % 2]!;
    const damaged = new Uint8Array(random(4) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes);
    for (let hits = random(6); hits > 0 && damaged.length > 0; hits -= 1) {
      const at = random(damaged.length);
      const length = random(3) === 0 ? random(5000) : 1;
      damaged.subarray(at, at + length).fill(random(256));
    }
    const salvaged = await salvage(damaged);
    if (salvaged === undefined) continue;
    for (const key of ["header", "manifest", "memoryMap", "root"] as const) {
      if (salvaged[key] !== undefined) expect(salvaged[key] as unknown).toEqual(truth[key] as unknown);
    }
    const known = new Set(extents.map((extent) => Bun.inspect(extent)));
    expect(salvaged.extents.every((extent) => known.has(Bun.inspect(extent)))).toBe(true);
  }
}, 60_000);

test("hostile files, their checksums mended, end in a page or in one of our errors", async () => {
  const random = randomNumbers(7);
  const corpus = containerCorpus();
  for (let count = 0; count < 400; count += 1) {
    const bytes = mutate(corpus[random(corpus.length)]![1], corpus[random(corpus.length)]![1], random);
    if (random(2) === 0) resealContainer(bytes);
    try {
      await salvage(bytes);
    } catch (error) {
      if (!(error instanceof CompatibilityError)) throw error;
    }
  }
}, 60_000);

test("what is no snapshot is none", async () => {
  expect(await salvage(new Uint8Array(0))).toBeUndefined();
  expect(await salvage(new Uint8Array(100_000))).toBeUndefined();
  expect(await salvage(new TextEncoder().encode("VHUSNAP"))).toBeUndefined();
});
