import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fuzz, fuzzRequests } from "./protocol.ts";

const CORPUS = join(import.meta.dir, "corpus", "protocol");
const TARGETS = { backend: fuzz, requests: fuzzRequests };

test.each(
  readdirSync(CORPUS)
    .filter((file) => file.endsWith(".json"))
    .sort(),
)("corpus: %s", (file) => {
  const entry = JSON.parse(readFileSync(join(CORPUS, file), "utf8")) as {
    target: keyof typeof TARGETS;
    seed: number;
    messages: number;
  };
  expect(TARGETS[entry.target](entry.seed, entry.messages).messages).toBeGreaterThanOrEqual(entry.messages);
});

// `npm run soak protocol requests` runs 100,000 of each.
test("5,000 messages: no crash, no hang, no leaked fd, and deep enough to mean something", () => {
  const report = fuzz(20261123, 5_000);
  expect(report.messages).toBeGreaterThanOrEqual(5_000);
  expect(report.queueStarts).toBeGreaterThan(50);
  expect(report.replies).toBeGreaterThan(2_500);
}, 30_000);

test("5,000 back-end requests", () => {
  expect(fuzzRequests(20261123, 5_000).replies).toBeGreaterThan(2_500);
}, 30_000);
