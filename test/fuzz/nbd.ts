/**
 * Fuzz target of the NBD server's parser: damaged conversations of a client, in pieces of any size.
 *
 * `bun test/fuzz/nbd.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/nbd.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { NbdDecoder } from "../../migrate/storage/nbd-decoder.ts";
import { FormatError } from "../../src/errors.ts";
import { MAX_NBD_WRITE_BYTES } from "../../src/limits.ts";
import { countOutcomes, fuzzFromShell } from "./count-outcomes.ts";

const CORPUS = join(import.meta.dir, "corpus", "nbd");
const DISK_BYTES = 1 << 20;

export function nbdCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** What became of it: how many requests, or "refused". Throws where a promise is broken. */
export function runNbd(bytes: Uint8Array, pieceBytes: number): string {
  const decoder = new NbdDecoder(new Map([["disk", DISK_BYTES]]));
  let requests = 0;
  try {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      for (const event of decoder.push(bytes.subarray(at, at + pieceBytes))) {
        if (event.kind === "end") return `ended after ${requests}`;
        if (event.kind !== "request") continue;
        requests += 1;
        if (event.request.type === "flush") continue;
        const { offset } = event.request;
        const size = event.request.type === "write" ? event.request.bytes.length : event.request.sizeBytes;
        if (offset < 0 || size === 0 || offset + size > DISK_BYTES)
          throw new Error("a request outside of the disk");
        if (event.request.type === "write" && size > MAX_NBD_WRITE_BYTES)
          throw new Error("a write over the limit");
      }
    }
    return `open after ${requests}`;
  } catch (error) {
    if (error instanceof FormatError) return "refused";
    throw error;
  }
}

/** How often each outcome was seen. */
export function fuzzNbd(seed: number, iterations: number): Map<string, number> {
  return countOutcomes(nbdCorpus(), seed, iterations, (bytes, random) => runNbd(bytes, 1 + random(4096)));
}

if (import.meta.main) await fuzzFromShell(fuzzNbd);
