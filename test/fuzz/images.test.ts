import { expect, test } from "bun:test";
import { fuzzImages, imageCorpus, runImage } from "./images.ts";

test.each(imageCorpus())("corpus: %s", (name, bytes) => {
  expect(runImage(bytes) !== "refused").toBe(name.startsWith("ok-"));
});

test("10,000 damaged headers and tokens are refused or understood, and a seed gives the same run twice", () => {
  expect(fuzzImages(20261125, 10_000).size).toBeGreaterThan(3);
  expect([...fuzzImages(7, 300)]).toEqual([...fuzzImages(7, 300)]);
});
