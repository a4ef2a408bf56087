/**
 * Fuzz target of QEMU's stream: damaged streams, in pieces of any size, through the parser; what is accepted is rebuilt and
 * must be accepted again, the same, and is taken apart as trees.
 *
 * `bun test/fuzz/qemu-stream.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/qemu-stream.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { streamTrees } from "../../migrate/qemu/decode/device-trees.ts";
import { rebuildStream } from "../../migrate/qemu/stream-writer.ts";
import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { collectStream, joined } from "../support/collect-stream.ts";
import { mutate, randomNumbers } from "./mutate.ts";

const CORPUS = join(import.meta.dir, "corpus", "qemu-stream");

export function qemuStreamCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** "accepted", or where it was refused. Throws where a promise is broken. */
export function runQemuStream(bytes: Uint8Array, pieceBytes = bytes.length): string {
  try {
    const { parsed } = collectStream(bytes, () => pieceBytes);
    const again = collectStream(joined(rebuildStream(parsed, () => [])));
    if (Buffer.compare(again.parsed.rest, parsed.rest) !== 0)
      throw new Error("rebuilt, it is another stream");
    // Whatever was accepted can be shown.
    streamTrees(parsed);
    return "accepted";
  } catch (error) {
    if (error instanceof CompatibilityError) return "does not fit";
    if (!(error instanceof FormatError)) throw error;
    return `refused in ${error.section}`;
  }
}

/** How often each outcome was seen. */
export function fuzzQemuStream(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const seeds = qemuStreamCorpus().map(([, bytes]) => bytes);
  const outcomes = new Map<string, number>();
  for (let round = 0; round < iterations; round += 1) {
    const [base, other] = [seeds[random(seeds.length)]!, seeds[random(seeds.length)]!];
    const outcome = runQemuStream(mutate(base, other, random), 1 + random(8192));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) {
  const [seed = Date.now(), iterations = 1_000_000] = process.argv.slice(2).map(Number);
  console.log(`seed ${seed}`);
  for (const [outcome, count] of fuzzQemuStream(seed, iterations)) console.log(`${count} ${outcome}`);
}
