/**
 * Fuzz target of QEMU's device sections as trees: a description and the bytes that it is said to describe, damaged apart from each
 * other. An input is be32 length of the description, the description (JSON), the section's bytes.
 *
 * `bun test/fuzz/qemu-tree.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/qemu-tree.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { StateTree } from "../../migrate/decode/mod.ts";
import { SectionTree } from "../../migrate/qemu/decode/section-tree.ts";
import { FormatError } from "../../src/errors.ts";
import { mutate, randomNumbers } from "./mutate.ts";

const CORPUS = join(import.meta.dir, "corpus", "qemu-tree");
/** Entries for each byte of the input: an integer of one byte is one, each field's name takes some. */
const MOST_ENTRIES_PER_BYTE = 8;

export function qemuTreeCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** "shown", or why not. Throws where a promise is broken. */
export function runQemuTree(input: Uint8Array): string {
  const bytes = Buffer.from(input);
  const end = 4 + (bytes.length < 4 ? 0 : bytes.readUInt32BE(0));
  let table: unknown;
  try {
    table = JSON.parse(bytes.toString("utf8", 4, end));
  } catch {
    return "no JSON";
  }
  if (typeof table !== "object" || table === null || Array.isArray(table)) return "no object";
  try {
    const trees = new SectionTree().of(table as Record<string, unknown>, bytes.subarray(end));
    const count = countOf(trees);
    if (count > MOST_ENTRIES_PER_BYTE * bytes.length + 16)
      throw new Error(`${count} entries of ${bytes.length} bytes`);
    return "shown";
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return `refused in ${error.section}`;
  }
}

function countOf(trees: readonly StateTree[]): number {
  return trees.reduce((sum, { children = [] }) => sum + 1 + countOf(children), 0);
}

/** How often each outcome was seen. */
export function fuzzQemuTree(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const seeds = qemuTreeCorpus().map(([, bytes]) => bytes);
  const outcomes = new Map<string, number>();
  for (let round = 0; round < iterations; round += 1) {
    const [base, other] = [seeds[random(seeds.length)]!, seeds[random(seeds.length)]!];
    const outcome = runQemuTree(random(2) === 0 ? numbersChanged(base, random) : mutate(base, other, random));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

const NUMBERS = [
  "0",
  "1",
  "4",
  "8",
  "255",
  "4096",
  "65536",
  "2147483648",
  "9007199254740991",
  "-1",
  "1e99",
  '"x"',
  "null",
];

/** JSON that still is JSON: a number in it is another one. The length in front is put right. */
function numbersChanged(base: Uint8Array, random: (limit: number) => number): Uint8Array {
  const bytes = Buffer.from(base);
  const end = 4 + bytes.readUInt32BE(0);
  const text = bytes.toString("utf8", 4, end);
  const places = [...text.matchAll(/(?<=:)\d+/g)];
  if (places.length === 0) return base;
  const place = places[random(places.length)]!;
  const changed =
    text.slice(0, place.index) + NUMBERS[random(NUMBERS.length)]! + text.slice(place.index + place[0].length);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(Buffer.byteLength(changed));
  return Buffer.concat([head, Buffer.from(changed), bytes.subarray(end)]);
}

if (import.meta.main) {
  const [seed = Date.now(), iterations = 1_000_000] = process.argv.slice(2).map(Number);
  console.log(`seed ${seed}`);
  for (const [outcome, count] of fuzzQemuTree(seed, iterations)) console.log(`${count} ${outcome}`);
}
