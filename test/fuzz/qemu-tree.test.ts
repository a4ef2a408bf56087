import { expect, test } from "bun:test";
import { fuzzQemuTree, qemuTreeCorpus, runQemuTree } from "./qemu-tree.ts";

test.each(qemuTreeCorpus())("corpus: %s", (name, bytes) => {
  expect(runQemuTree(bytes) === "shown").toBe(name.startsWith("ok-"));
});

test("10,000 damaged descriptions and sections keep the promise, and a seed gives the same run twice", () => {
  const first = fuzzQemuTree(20261125, 10_000);
  expect(first.size).toBeGreaterThan(2);
  expect([...fuzzQemuTree(20261125, 10_000)]).toEqual([...first]);
});
