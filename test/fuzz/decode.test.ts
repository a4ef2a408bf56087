import { expect, test } from "bun:test";
import { decodeCorpus, fuzzDecode, runDecode } from "./decode.ts";

test.each(decodeCorpus())("corpus: %s", (name, bytes) => {
  expect(runDecode(name, bytes) === "accepted").toBe(name.includes("-ok-"));
});

test("5,000 damaged device states end in a tree or a FormatError", () => {
  expect(fuzzDecode(20261125, 5_000).size).toBeGreaterThan(4);
});
