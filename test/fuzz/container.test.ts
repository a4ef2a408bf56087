import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { containerCorpus, fuzzContainer, resealContainer, runContainer } from "./container.ts";

const folder = mkdtempSync(join(tmpdir(), "vhu-fuzz-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each(containerCorpus())("corpus: %s", (name, bytes) => {
  const outcome = runContainer(join(folder, "a.vhu"), bytes);
  expect(outcome === "accepted").toBe(name.startsWith("ok-"));
});

test("mending a whole file changes nothing", () => {
  for (const [name, bytes] of containerCorpus()) {
    if (!name.startsWith("ok-")) continue;
    const mended = new Uint8Array(bytes);
    resealContainer(mended);
    expect(Buffer.compare(mended, bytes)).toBe(0);
  }
});

test("3,000 damaged snapshots keep the promise, and a seed gives the same run twice", () => {
  const first = fuzzContainer(20261123, 3_000);
  expect(first.size).toBeGreaterThan(8);
  expect([...fuzzContainer(20261123, 300)]).toEqual([...fuzzContainer(20261123, 300)]);
});
