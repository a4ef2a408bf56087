/**
 * Fuzz target of the files that QEMU's stream can stand in: damaged virsh save headers and mapped-ram headers, by the same
 * code as files on a disk. What is accepted is read to its end, without more bytes than the file has.
 *
 * `bun test/fuzz/qemu-file.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/qemu-file, packed by gzip.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  encodeLibvirtHead,
  isLibvirtImage,
  readLibvirtHead,
} from "../../migrate/qemu/files/libvirt-header.ts";
import { demandedCapabilities, readMappedRamHead } from "../../migrate/qemu/files/mapped-ram-head.ts";
import { sequentialOf } from "../../migrate/qemu/files/mapped-ram-reader.ts";
import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { collectStream } from "../support/collect-stream.ts";
import { mutate, randomNumbers } from "./mutate.ts";

const CORPUS = join(import.meta.dir, "corpus", "qemu-file");
/** Where the headers are; the rest is pages. */
const MUTATED_BYTES = 1024;
/** Of a record around 1 MiB of pages, and of what stands in front of the first. */
const MOST_ADDED_BYTES = 16 * 1024;

export function qemuFileCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, Bun.gunzipSync(readFileSync(join(CORPUS, name)))]);
}

/** "accepted", or where it was refused. Throws where a promise is broken. */
export function runQemuFile(bytes: Uint8Array): string {
  const read = (offset: number, sizeBytes: number) => {
    if (offset + sizeBytes > bytes.length) throw new FormatError("the file ends early", "file", offset);
    return bytes.subarray(offset, offset + sizeBytes);
  };
  try {
    let base = 0;
    if (isLibvirtImage(bytes)) {
      const head = readLibvirtHead(read);
      base = head.streamOffset;
      const encoded = encodeLibvirtHead(head);
      const again = readLibvirtHead((offset, sizeBytes) => encoded.subarray(offset, offset + sizeBytes));
      if (again.xml !== head.xml || again.cookie !== head.cookie) throw new Error("the XML is another one");
      if (head.format !== "sparse") return `accepted, ${head.format}`;
    }
    demandedCapabilities(bytes.subarray(base));
    const pieces: Uint8Array[] = [];
    let sizeBytes = 0;
    for (const piece of sequentialOf(readMappedRamHead(read, base, bytes.length), read, bytes.length)) {
      sizeBytes += piece.length;
      if (sizeBytes > bytes.length + MOST_ADDED_BYTES) throw new Error("more comes out than went in");
      pieces.push(piece.slice());
    }
    collectStream(Buffer.concat(pieces));
    return "accepted, mapped-ram";
  } catch (error) {
    if (error instanceof CompatibilityError) return "does not fit";
    if (!(error instanceof FormatError)) throw error;
    return `refused in ${error.section}`;
  }
}

/** How often each outcome was seen. */
export function fuzzQemuFile(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const seeds = qemuFileCorpus().map(([, bytes]) => bytes);
  const outcomes = new Map<string, number>();
  for (let round = 0; round < iterations; round += 1) {
    const [base, other] = [seeds[random(seeds.length)]!, seeds[random(seeds.length)]!];
    const head = mutate(base.subarray(0, MUTATED_BYTES), other.subarray(0, MUTATED_BYTES), random);
    const outcome = runQemuFile(Buffer.concat([head, base.subarray(MUTATED_BYTES)]));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) {
  const [seed = Date.now(), iterations = 1_000_000] = process.argv.slice(2).map(Number);
  console.log(`seed ${seed}`);
  for (const [outcome, count] of fuzzQemuFile(seed, iterations)) console.log(`${count} ${outcome}`);
}
