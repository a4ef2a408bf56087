import { expect, test } from "bun:test";
import { NumberedLines, numberedLine } from "../../../migrate/machine/numbered-lines.ts";

const STREAM = Buffer.from(Array.from({ length: 200 }, (_, i) => numberedLine(i + 1)).join(""));
const clean = { lost: 0, repeated: 0, torn: 0 };

function read(...pieces: readonly Uint8Array[]) {
  const lines = new NumberedLines();
  for (const piece of pieces) lines.push(piece);
  return { ...lines.state, received: lines.received };
}

test("a stream in pieces of any size is whole, also over a saved state", () => {
  for (const size of [1, 7, 63, 4096]) {
    let lines = new NumberedLines();
    for (let at = 0; at < STREAM.length; at += size) {
      lines.push(STREAM.subarray(at, at + size));
      lines = new NumberedLines(lines.state);
    }
    expect({ ...lines.state, received: lines.received }).toMatchObject({ ...clean, received: 200, rest: "" });
  }
});

test("every byte that is lost or repeated is noticed", () => {
  for (let at = 0; at < STREAM.length; at++) {
    const lost = read(STREAM.subarray(0, at), STREAM.subarray(at + 1));
    const repeated = read(STREAM.subarray(0, at + 1), STREAM.subarray(at));
    for (const { torn, lost: gone, rest } of [lost, repeated]) {
      // Of the last line only the end is missing.
      expect(torn + gone + rest.length).toBeGreaterThan(0);
    }
  }
});

test("lines that are lost or repeated are counted, and what has no end is given up", () => {
  const line = (n: number) => Buffer.from(numberedLine(n));
  expect(read(line(1), line(4), line(5))).toMatchObject({ ...clean, lost: 2, received: 5 });
  expect(read(line(1), line(2), line(1), line(2), line(3))).toMatchObject({
    ...clean,
    repeated: 2,
    received: 3,
  });
  expect(read(line(1), Buffer.alloc(1000, "x"))).toMatchObject({ ...clean, torn: 1, rest: "" });
});
