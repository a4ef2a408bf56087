import { expect, test } from "bun:test";
import { fuzzOperations, operationsCorpus, runOperations } from "./operations.ts";

test.each(operationsCorpus())("corpus: %s", async (name, bytes) => {
  expect((await runOperations(bytes)).endsWith("a line")).toBe(name.startsWith("ok-"));
});

test("2,000 damaged logs end in a record or in none", async () => {
  expect((await fuzzOperations(20261125, 2_000)).size).toBeGreaterThan(3);
}, 60_000);
