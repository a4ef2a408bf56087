import { expect, test } from "bun:test";
import { fuzzQemuFile, qemuFileCorpus, runQemuFile } from "./qemu-file.ts";

test.each(qemuFileCorpus())("corpus: %s", (name, bytes) => {
  expect(runQemuFile(bytes).startsWith("accepted")).toBe(name.startsWith("ok-"));
});

test("1,000 damaged files keep the promise, and a seed gives the same run twice", () => {
  const first = fuzzQemuFile(20261125, 1_000);
  expect(first.size).toBeGreaterThan(4);
  expect([...fuzzQemuFile(20261125, 1_000)]).toEqual([...first]);
});
