import { expect, test } from "bun:test";
import { fuzzState, runState, stateCorpus } from "./state.ts";

test.each(stateCorpus())("corpus: %s", (name, bytes) => {
  const outcome = runState(name, bytes);
  expect(outcome.startsWith("accepted")).toBe(name.includes("-ok-"));
});

test("5,000 damaged states keep the promise, and a seed gives the same run twice", () => {
  const first = fuzzState(20261123, 5_000);
  expect(first.size).toBeGreaterThan(4);
  expect([...fuzzState(20261123, 5_000)]).toEqual([...first]);
});
