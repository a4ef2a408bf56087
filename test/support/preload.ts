import { afterAll, afterEach, expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fd, Mapping } from "../../src/sys/mod.ts";

// What vhu remembers in a test is not for the user's own log of operations and list of snapshots.
const stateHome = mkdtempSync(join(tmpdir(), "vhu-state-"));
process.env.XDG_STATE_HOME = stateHome;
afterAll(() => rmSync(stateHome, { recursive: true, force: true }));

// No test may leave an fd or a mapping behind: each is checked against what was open before it.
let known = new Set<string>();

function snapshot(): string[] {
  return [...Fd.liveLabels(), ...Mapping.liveLabels()];
}

afterEach(() => {
  const left = snapshot().filter((label) => !known.has(label));
  known = new Set(snapshot());
  expect(left, "fds or mappings that the test did not close").toEqual([]);
});
