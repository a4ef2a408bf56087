import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseTrace } from "../support/recorded-session.ts";
import { replay } from "../support/replay.ts";

const FOLDER = join(import.meta.dir, "../fixtures/traces");
const traces = readdirSync(FOLDER).filter((name) => name.endsWith(".txt"));

test("all recordings are here", () => {
  expect(traces.length).toBe(9);
});

test.each(traces)("what QEMU sent in %s is served by our back-end, in its order", (name) => {
  const text = readFileSync(join(FOLDER, name), "utf8");
  const counts = replay(parseTrace(text), name.startsWith("fs-") ? "fs" : "blk");
  const { messages, replies, chains, loggedPages } = counts;
  const sent = text.split("\n").filter((line) => / -> [A-Z_]+.* size=/.test(line)).length;
  const answered = text.split("\n").filter((line) => / <- [A-Z_]+\(reply\)/.test(line)).length;
  expect({ messages, replies }).toEqual({ messages: sent, replies: answered });
  console.log(
    `${name}: ${messages} messages, ${replies} replies, ${chains} chains, ${loggedPages} logged pages`,
  );
});
