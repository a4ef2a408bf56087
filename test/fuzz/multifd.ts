/**
 * Fuzz target of multifd channels: damaged greetings and packets, one after another.
 *
 * `bun test/fuzz/multifd.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/multifd.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import {
  CONTENT_BYTES,
  GREETING_BYTES,
  PACKET_BYTES,
  PACKET_PAGES,
  PAGE_BYTES,
  readGreeting,
  readPacket,
} from "../../migrate/multifd/packet.ts";
import { FormatError } from "../../src/errors.ts";
import { mutate, randomNumbers } from "./mutate.ts";

const CORPUS = join(import.meta.dir, "corpus", "multifd");

export function multifdCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** "accepted", "cut off" or "refused". Throws where a promise is broken. */
export function runMultifd(bytes: Uint8Array): string {
  try {
    if (bytes.length < GREETING_BYTES) return "cut off";
    readGreeting(bytes);
    for (let at = GREETING_BYTES; at < bytes.length; ) {
      if (at + PACKET_BYTES > bytes.length) return "cut off";
      const { offsets, zeros, block } = readPacket(bytes.subarray(at, at + PACKET_BYTES));
      const pages = offsets.length + zeros.length;
      if (pages > PACKET_PAGES || offsets.length * PAGE_BYTES > CONTENT_BYTES)
        throw new Error("too many pages");
      if (pages > 0 !== (block !== "")) throw new Error("pages of no block");
      if ([...offsets, ...zeros].some((each) => each % PAGE_BYTES !== 0 || !Number.isSafeInteger(each)))
        throw new Error("an offset of no page");
      at += PACKET_BYTES + offsets.length * PAGE_BYTES;
      if (at > bytes.length) return "cut off";
    }
    return "accepted";
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return "refused";
  }
}

/** How often each outcome was seen. */
export function fuzzMultifd(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const seeds = multifdCorpus().map(([, bytes]) => bytes);
  const outcomes = new Map<string, number>();
  for (let round = 0; round < iterations; round += 1) {
    const [base, other] = [seeds[random(seeds.length)]!, seeds[random(seeds.length)]!];
    const outcome = runMultifd(mutate(base, other, random));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) {
  const [seed = Date.now(), iterations = 1_000_000] = process.argv.slice(2).map(Number);
  console.log(`seed ${seed}`);
  for (const [outcome, count] of fuzzMultifd(seed, iterations)) console.log(`${count} ${outcome}`);
}
