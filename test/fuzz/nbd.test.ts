import { expect, test } from "bun:test";
import { fuzzNbd, nbdCorpus, runNbd } from "./nbd.ts";

test.each(nbdCorpus())("corpus: %s", (name, bytes) => {
  const outcomes = [1, 7, 100_000].map((pieceBytes) => runNbd(bytes, pieceBytes));
  expect(new Set(outcomes).size).toBe(1);
  expect(outcomes[0] === "refused").toBe(name.startsWith("refused-"));
});

test("20,000 damaged conversations are refused or understood, and a seed gives the same run twice", () => {
  const first = fuzzNbd(20261125, 20_000);
  expect(first.size).toBeGreaterThan(5);
  expect([...fuzzNbd(20261125, 500)]).toEqual([...fuzzNbd(20261125, 500)]);
});
