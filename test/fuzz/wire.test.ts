import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type DialectName, dialects, type Side } from "../../src/wire/mod.ts";
import { fromHex } from "../wire/golden.ts";
import { fuzz, runOne } from "./wire.ts";

const CORPUS = join(import.meta.dir, "corpus", "wire");

/** A corpus file has `key: value` lines; `bytes` comes last and may go on over more lines. */
function parse(text: string): { dialect: DialectName; side: Side; expected: string; bytes: Uint8Array } {
  const fields = new Map<string, string>();
  const [head, bytes] = text.split("\nbytes:") as [string, string];
  for (const line of head.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return {
    dialect: fields.get("dialect") as DialectName,
    side: fields.get("side") as Side,
    expected: fields.get("expected") ?? "",
    bytes: fromHex(bytes),
  };
}

test.each(readdirSync(CORPUS).sort())("corpus: %s", (file) => {
  const { dialect, side, expected, bytes } = parse(readFileSync(join(CORPUS, file), "utf8"));
  expect(runOne({ dialect: dialects[dialect], side, bytes })).toBe(expected);
});

test("5,000 damaged messages keep the promise, and a seed gives the same run twice", () => {
  const first = fuzz(20261101, 5_000);
  expect(first.messages).toBe(5_000);
  expect(first.accepted).toBeGreaterThan(500);
  expect(first.outcomes.size).toBeGreaterThan(20);
  expect([...fuzz(20261101, 5_000).outcomes]).toEqual([...first.outcomes]);
});
