/**
 * Fuzz target of the container: damaged snapshots, with and without their checksums mended, through open, verify and all
 * that reads.
 *
 * `bun test/fuzz/container.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/container.
 */
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { END_RECORD_BYTES } from "../../migrate/snapshot/end-record.ts";
import { INDEX_FIXED_BYTES, RECORD_ENTRY_BYTES } from "../../migrate/snapshot/index-table.ts";
import { RecordType, SnapshotReader } from "../../migrate/snapshot/mod.ts";
import {
  RECORD_HEAD_BYTES,
  RECORD_OVERHEAD_BYTES,
  RecordFlag,
  recordChecksum,
} from "../../migrate/snapshot/record.ts";
import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { mutate, randomNumbers } from "./mutate.ts";

export const CONTAINER_CORPUS = join(import.meta.dir, "corpus", "container");
/** Of the corpus's encrypted files. */
export const CONTAINER_KEY = new Uint8Array(32).fill(0x5a);

/** The corpus by file name, and the fixtures of all versions. */
export function containerCorpus(): [string, Uint8Array][] {
  const files = readdirSync(CONTAINER_CORPUS).sort();
  const paths = [...files.map((name) => join(CONTAINER_CORPUS, name)), ...fixture.paths];
  return paths.map((path, index) => [
    files[index] ?? `ok-fixture-${index - files.length}.vhu`,
    new Uint8Array(readFileSync(path)),
  ]);
}

/** A folder for damaged files, with the fixture beside them that incremental ones are based on. */
export function containerFolder(): Disposable & { readonly path: string; readonly file: string } {
  const path = mkdtempSync(join(tmpdir(), "vhu-fuzz-"));
  copyFileSync(fixture.paths[1]!, join(path, "base.vhu"));
  const file = join(path, "a.vhu");
  return { path, file, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** "accepted", or what refused it. Throws where a promise is broken. `path` is overwritten. */
export function runContainer(path: string, bytes: Uint8Array): string {
  writeFileSync(path, bytes);
  try {
    using reader = SnapshotReader.open(path, { fileKey: CONTAINER_KEY });
    const result = reader.verify({ deep: true });
    if (!result.ok) {
      if (result.problems.some(({ section }) => section === "")) throw new Error("a problem has no place");
      return `found in ${result.problems[0]?.section.replaceAll(/\d+/g, "N")}`;
    }
    // What was found to be whole must be readable.
    try {
      readAll(reader);
    } catch (cause) {
      throw new Error("a verified snapshot cannot be read", { cause });
    }
    return "accepted";
  } catch (error) {
    if (error instanceof CompatibilityError) return "not compatible";
    if (error instanceof FormatError && error.section !== "")
      return `refused in ${error.section.replaceAll(/\d+/g, "N")}`;
    throw error;
  }
}

function readAll(reader: SnapshotReader): void {
  for (const { id } of reader.memoryMap) for (const piece of reader.memory(id)) void piece;
  for (const { type, streamId } of reader.streams) {
    if (type === RecordType.deviceState) for (const chunk of reader.deviceState(streamId)) void chunk;
  }
  reader.machineState();
}

/** Mends checksums, index entries and root, as far as the records can be walked. */
export function resealContainer(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 16) return;
  let at = 16 + view.getUint32(12, true);
  if (at + 8 > bytes.length) return;
  view.setBigUint64(at, xxh3(bytes.subarray(0, at)), true);
  const checksums = [view.getBigUint64(at, true)];
  for (at += 8; at + RECORD_OVERHEAD_BYTES <= bytes.length; ) {
    const length = Number(view.getBigUint64(at + 16, true));
    const end = at + RECORD_HEAD_BYTES + length;
    if (end + 8 > bytes.length) return;
    const payload = bytes.subarray(at + RECORD_HEAD_BYTES, end);
    const isSealed = (view.getUint16(at + 2, true) & RecordFlag.encrypted) !== 0;
    // What a sealed index lists, only its key can mend.
    if (view.getUint16(at, true) === RecordType.index) resealIndex(bytes, payload, isSealed ? [] : checksums);
    const checksum = recordChecksum(bytes.subarray(at, at + RECORD_HEAD_BYTES), payload);
    view.setBigUint64(end, checksum, true);
    checksums.push(checksum);
    at = end + 8;
  }
}

function resealIndex(bytes: Uint8Array, payload: Uint8Array, checksums: readonly bigint[]): void {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  for (const [index, checksum] of checksums.entries()) {
    const at = INDEX_FIXED_BYTES + index * RECORD_ENTRY_BYTES + 32;
    if (at + 8 <= payload.length) view.setBigUint64(at, checksum, true);
  }
  const root = new Uint8Array(Bun.CryptoHasher.hash("sha256", payload));
  if (bytes.length >= END_RECORD_BYTES)
    bytes.set(root, bytes.length - END_RECORD_BYTES + RECORD_HEAD_BYTES + 32);
}

/** How often each outcome was seen. */
export function fuzzContainer(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const corpus = containerCorpus();
  const outcomes = new Map<string, number>();
  using folder = containerFolder();
  for (let index = 0; index < iterations; index += 1) {
    const original = corpus[random(corpus.length)]![1];
    const bytes = mutate(original, corpus[random(corpus.length)]![1], random);
    const isMended = random(3) > 0;
    if (isMended) resealContainer(bytes);
    const outcome = runContainer(folder.file, bytes);
    const isSame = corpus.some(([, seed]) => Buffer.compare(bytes, seed) === 0);
    if (outcome === "accepted" && !isMended && !isSame)
      throw new Error(`seed ${seed}, ${index}: damage was not found`);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) {
  const [seed, iterations] = [Number(process.argv[2] ?? Date.now() % 1e9), Number(process.argv[3] ?? 20_000)];
  console.log(`seed ${seed}, ${iterations} inputs`, fuzzContainer(seed, iterations));
}
