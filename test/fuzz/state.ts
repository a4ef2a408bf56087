/**
 * Fuzz target of the device state: a stream through the decoder, in pieces of any size, and values through msgpack.
 *
 * `bun test/fuzz/state.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/state.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "../../src/errors.ts";
import { blockChecksum } from "../../src/state/frame.ts";
import { decodeState, xxh3 } from "../../src/state/mod.ts";
import { unpackValue } from "../../src/state/msgpack.ts";
import { fuzzFromShell } from "./count-outcomes.ts";
import { mutate, randomNumbers } from "./mutate.ts";

export const STATE_CORPUS = join(import.meta.dir, "corpus", "state");

/** The corpus by file name. A "value-" is one msgpack value, a "state-" a whole state. */
export function stateCorpus(): [string, Uint8Array][] {
  return readdirSync(STATE_CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(STATE_CORPUS, name)))]);
}

/** "accepted", or where it was refused. Throws where a promise is broken. */
export function runState(name: string, bytes: Uint8Array, pieceBytes = bytes.length): string {
  try {
    if (name.startsWith("value-")) {
      unpackValue(bytes, "value", 0);
    } else {
      const pieces = Math.ceil(bytes.length / Math.max(1, pieceBytes));
      decodeState(
        Array.from({ length: pieces }, (_, at) => bytes.subarray(at * pieceBytes, (at + 1) * pieceBytes)),
      );
    }
    return "accepted";
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    if (error.section === "" || error.offset < 0)
      throw new Error("the error names no place", { cause: error });
    return `refused in ${error.section.replaceAll(/".*"/g, "…")}`;
  }
}

/** Mends the checksums, as far as the blocks can be walked, so that the damage gets past them. */
export function resealState(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 16) return;
  let at = 16 + view.getUint32(12, true);
  if (at + 8 > bytes.length) return;
  let checksum = xxh3(bytes.subarray(0, at));
  view.setBigUint64(at, checksum, true);
  for (at += 8; at + 8 <= bytes.length; ) {
    const end = at + 8 + view.getUint32(at + 4, true);
    if (end + 8 > bytes.length) return;
    checksum = blockChecksum(bytes.subarray(at, at + 8), checksum, bytes.subarray(at + 8, end));
    view.setBigUint64(end, checksum, true);
    at = end + 8;
  }
}

/** How often each outcome was seen. */
export function fuzzState(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const corpus = stateCorpus();
  const outcomes = new Map<string, number>();
  for (let index = 0; index < iterations; index += 1) {
    const [name, original] = corpus[random(corpus.length)]!;
    const bytes = mutate(original, corpus[random(corpus.length)]![1], random);
    const isWhole = name.startsWith("value-");
    if (!isWhole && random(2) === 0) resealState(bytes);
    const pieceBytes = 1 + random(bytes.length + 1);
    const outcome = runState(name, bytes, pieceBytes);
    // However it is cut, the outcome is the same.
    const again = runState(name, bytes);
    if (again !== outcome) throw new Error(`seed ${seed}, ${index}: ${outcome} in pieces, ${again} at once`);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) await fuzzFromShell(fuzzState);
