/**
 * Fuzz target of the device states that are taken apart for people: damaged ones of each form end in a tree or a FormatError.
 *
 * `bun test/fuzz/decode.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/decode.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { treeLines } from "../../bin/snapshot/tree-lines.ts";
import {
  type DeviceStateForm,
  decodeDeviceState,
  decodeDeviceStateAs,
  deviceStateForms,
} from "../../migrate/decode/mod.ts";
import { FormatError } from "../../src/errors.ts";
import { fuzzFromShell } from "./count-outcomes.ts";
import { mutate, randomNumbers } from "./mutate.ts";
import { resealState } from "./state.ts";

const CORPUS = join(import.meta.dir, "corpus", "decode");

/** The corpus by file name, which begins with the form. */
export function decodeCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** "accepted", or where it was refused. Throws where a promise is broken. */
export function runDecode(name: string, bytes: Uint8Array): string {
  const form = deviceStateForms.find((candidate) => name.startsWith(candidate)) as DeviceStateForm;
  try {
    // Nothing is thrown on the way to the page either.
    treeLines(decodeDeviceStateAs(form, bytes));
    decodeDeviceState(bytes, { type: "fs" });
    return "accepted";
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    if (error.section === "") throw new Error("the error names no place", { cause: error });
    return `refused: ${error.message.replaceAll(/\d+|".*?"/g, "…")}`;
  }
}

/** How often each outcome was seen. */
export function fuzzDecode(seed: number, iterations: number): Map<string, number> {
  const random = randomNumbers(seed);
  const corpus = decodeCorpus();
  const outcomes = new Map<string, number>();
  for (let index = 0; index < iterations; index += 1) {
    const [name, original] = corpus[random(corpus.length)]!;
    const bytes = mutate(original, corpus[random(corpus.length)]![1], random);
    if (name.startsWith("vhu") && random(2) === 0) resealState(bytes);
    const outcome = runDecode(name, bytes);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) await fuzzFromShell(fuzzDecode);
