/**
 * Fuzz target of the operations' logs: damaged ones end in a record, whose hand-over is a known state or is refused, or in none.
 *
 * `bun test/fuzz/operations.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/operations.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { assessHandover } from "../../migrate/live/mod.ts";
import { assessLoad, assessSave } from "../../migrate/mod.ts";
import { parseEntries } from "../../migrate/operations/entry-lines.ts";
import { recordOf } from "../../migrate/operations/operation-record.ts";
import { VhuError } from "../../src/errors.ts";
import { fuzzFromShell } from "./count-outcomes.ts";
import { mutate, randomNumbers } from "./mutate.ts";

const CORPUS = join(import.meta.dir, "corpus", "operations");

export function operationsCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** "none", or what kind of record it is and what is made of it. Throws where a promise is broken. */
export async function runOperations(bytes: Uint8Array): Promise<string> {
  const record = recordOf("load-00000000", parseEntries(new TextDecoder().decode(bytes)));
  if (record === undefined) return "none";
  const look = async () => "gone" as const;
  try {
    const assess = record.kind === "save" ? assessSave : record.kind === "load" ? assessLoad : assessHandover;
    const { line } = await assess(record, look);
    return `${record.kind}: ${line === "" ? "nothing said" : "a line"}`;
  } catch (error) {
    if (!(error instanceof VhuError)) throw error;
    return `${record.kind}: ${error.code}`;
  }
}

/** Gives every line the checksum that its JSON has now, so that more than that is reached. */
export function resealLines(bytes: Uint8Array): Uint8Array {
  const lines = new TextDecoder().decode(bytes).split("\n");
  const sealed = lines.map((line) => {
    const json = line.slice(line.indexOf("{"));
    return line.includes("{") ? `${Bun.hash.xxHash3(json).toString(16).padStart(16, "0")} ${json}` : line;
  });
  return new TextEncoder().encode(sealed.join("\n"));
}

/** How often each outcome was seen. */
export async function fuzzOperations(seed: number, iterations: number): Promise<Map<string, number>> {
  const random = randomNumbers(seed);
  const corpus = operationsCorpus();
  const outcomes = new Map<string, number>();
  for (let index = 0; index < iterations; index += 1) {
    const original = corpus[random(corpus.length)]![1];
    const damaged = mutate(original, corpus[random(corpus.length)]![1], random);
    const outcome = await runOperations(random(4) === 0 ? damaged : resealLines(damaged));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

if (import.meta.main) await fuzzFromShell(fuzzOperations);
