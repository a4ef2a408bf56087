/**
 * Fuzz target of what decides about names from outside: qcow2 headers and pairing tokens.
 *
 * `bun test/fuzz/images.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/images.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeToken, encodeToken } from "../../migrate/live/pairing-token.ts";
import { parseQcow2References } from "../../migrate/policy/qcow2-header.ts";
import { FormatError, UsageError } from "../../src/errors.ts";
import { countOutcomes, fuzzFromShell } from "./count-outcomes.ts";

const CORPUS = join(import.meta.dir, "corpus", "images");

export function imageCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** What became of a header, or of a token's text. Throws where a promise is broken. */
export function runImage(bytes: Uint8Array): string {
  try {
    const { backing, dataFile } = parseQcow2References(bytes);
    const names = [backing?.name, backing?.format, dataFile].filter((name) => name !== undefined);
    if (names.some((name) => name === "" || /\p{Cc}/u.test(name))) throw new Error("a name is none");
    return `${names.length} names`;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
  }
  try {
    const token = decodeToken(new TextDecoder().decode(bytes.subarray(0, 200)));
    if (encodeToken(decodeToken(encodeToken(token))) !== encodeToken(token))
      throw new Error("it is another token");
    return "token";
  } catch (error) {
    if (error instanceof UsageError) return "refused";
    throw error;
  }
}

/** How often each outcome was seen. */
export function fuzzImages(seed: number, iterations: number): Map<string, number> {
  return countOutcomes(imageCorpus(), seed, iterations, runImage);
}

if (import.meta.main) await fuzzFromShell(fuzzImages);
