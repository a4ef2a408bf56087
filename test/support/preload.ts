import { afterEach, expect } from "bun:test";
import { Fd, Mapping } from "../../src/sys/mod.ts";

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
