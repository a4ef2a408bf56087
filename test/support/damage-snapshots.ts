import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type NewFileKey, newFileKey, SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { randomNumbers } from "../fuzz/mutate.ts";

const SIZE = 4 << 20;
const PAGE = 4096;

/** The kinds of file that are damaged. */
export const damagedKinds = ["plain", "incremental", "encrypted"] as const;
export type DamagedKind = (typeof damagedKinds)[number];

export interface DamageReport {
  readonly fileBytes: number;
  /** How often each place was named. */
  readonly places: Readonly<Record<string, number>>;
}

/** Flips `flips` single bits and cuts at `cuts` lengths, each in a whole file: each is found, with a place. */
export async function damageSnapshots(
  kind: DamagedKind,
  seed: number,
  flips: number,
  cuts: number,
): Promise<DamageReport> {
  const folder = mkdtempSync(join(tmpdir(), "vhu-damage-"));
  try {
    const { path, key } = await makeSnapshot(folder, kind);
    const whole = new Uint8Array(readFileSync(path));
    if (findingIn(path, key?.key) !== undefined) throw new Error("the file was damaged before");
    const places: Record<string, number> = {};
    for (const { bytes, what } of damages(whole, seed, flips, cuts)) {
      writeFileSync(path, bytes);
      const place = findingIn(path, key?.key);
      if (place === undefined || place === "")
        throw new Error(`${what} was not found (${kind}, seed ${seed})`);
      places[place] = (places[place] ?? 0) + 1;
    }
    return { fileBytes: whole.length, places };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Single bits that are flipped, then lengths at which it is cut. */
export function* damages(
  whole: Uint8Array,
  seed: number,
  flips: number,
  cuts: number,
): Generator<{ readonly bytes: Uint8Array; readonly what: string }, void> {
  const random = randomNumbers(seed);
  for (let count = 0; count < flips; count += 1) {
    const bytes = new Uint8Array(whole);
    const at = random(bytes.length);
    bytes[at]! ^= 1 << random(8);
    yield { bytes, what: `a flip at ${at}` };
  }
  for (let count = 0; count < cuts; count += 1) {
    const length = random(whole.length);
    yield { bytes: whole.subarray(0, length), what: `a cut at ${length}` };
  }
}

/** Where a file is damaged; undefined for a whole one. Anything but our own errors is thrown on. */
export function findingIn(path: string, fileKey: Uint8Array | undefined): string | undefined {
  try {
    using reader = SnapshotReader.open(path, fileKey === undefined ? {} : { fileKey });
    const result = reader.verify({ deep: true });
    return result.ok ? undefined : (result.problems[0]?.section ?? "").replaceAll(/\d+/g, "N");
  } catch (error) {
    if (error instanceof FormatError) return error.section.replaceAll(/\d+/g, "N");
    if (error instanceof CompatibilityError) return error.code;
    throw error;
  }
}

/** A file of 4 MiB of memory with everything in it, and its key if it is encrypted. */
export async function makeSnapshot(folder: string, kind: DamagedKind) {
  const random = randomNumbers(5);
  const memory = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE / 2; at += 8) memory[at] = random(256);
  memory.copyWithin(3 << 20, 0, 1 << 20);
  const key = kind === "encrypted" ? await newFileKey({ recipients: [await newRecipient()] }) : undefined;
  const path = join(folder, "base.vhu");
  await write(path, memory, undefined, key);
  if (kind !== "incremental") return { path, key };
  using base = SnapshotReader.open(path);
  for (let page = 0; page < SIZE / PAGE; page += 10) memory.fill(random(256), page * PAGE, page * PAGE + 100);
  const child = join(folder, "child.vhu");
  await write(child, memory, base, undefined);
  return { path: child, key };
}

async function write(
  path: string,
  memory: Uint8Array,
  base?: SnapshotReader,
  fileKey?: NewFileKey,
): Promise<void> {
  const header = { writer: { name: "vhu", version: "0" }, machine: { name: "m" } };
  using writer = SnapshotWriter.toFile(path, header, { base, fileKey });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
  await writer.writeMemory(0, 0, memory);
  const state = writer.writeDeviceState(2);
  state.write(memory.subarray(0, 20_000));
  state.finish();
  writer.writeMachineState(memory.subarray(0, 500));
  writer.writeManifest({ devices: [], memory: { totalBytes: SIZE } });
  writer.finish();
}

async function newRecipient(): Promise<string> {
  const { generateX25519Identity, identityToRecipient } = await import("age-encryption");
  return identityToRecipient(await generateX25519Identity());
}
