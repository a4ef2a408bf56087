import { expect, test } from "bun:test";
import { fuzzQemuStream, qemuStreamCorpus, runQemuStream } from "./qemu-stream.ts";

test.each(qemuStreamCorpus())("corpus: %s", (name, bytes) => {
  expect(runQemuStream(bytes) === "accepted").toBe(name.startsWith("ok-"));
  expect(runQemuStream(bytes, 7)).toBe(runQemuStream(bytes));
});

test("20,000 damaged streams keep the promise, and a seed gives the same run twice", () => {
  const first = fuzzQemuStream(20261123, 20_000);
  expect(first.size).toBeGreaterThan(4);
  expect([...fuzzQemuStream(20261123, 20_000)]).toEqual([...first]);
});
