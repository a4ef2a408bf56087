import { expect, test } from "bun:test";
import { fuzzMultifd, multifdCorpus, runMultifd } from "./multifd.ts";

test.each(multifdCorpus())("corpus: %s", (name, bytes) => {
  expect(runMultifd(bytes) === "accepted").toBe(name.startsWith("ok-"));
});

test("20,000 damaged channels are refused or understood, and a seed gives the same run twice", () => {
  const first = fuzzMultifd(20261125, 20_000);
  expect(first.size).toBeGreaterThan(2);
  expect([...fuzzMultifd(20261125, 500)]).toEqual([...fuzzMultifd(20261125, 500)]);
});
