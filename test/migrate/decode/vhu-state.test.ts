import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeVhuState, valueTree } from "../../../migrate/decode/mod.ts";
import { FormatError } from "../../../src/errors.ts";
import { ROOT } from "../../support/source-files.ts";

const state = readFileSync(join(ROOT, "test", "fixtures", "console-state-v1.bin"));

test("a vhu state becomes a tree of its sections", () => {
  const tree = decodeVhuState(state);
  expect(tree.note).toContain("vhu console");
  const names = tree.children?.map(({ name }) => name);
  expect(names?.[0]).toBe("header");
  expect(names?.length).toBeGreaterThan(1);
});

test("a damaged one is refused", () => {
  const bytes = new Uint8Array(state);
  bytes[40]! ^= 1;
  expect(() => decodeVhuState(bytes)).toThrow(FormatError);
});

test("plain values of every kind", () => {
  const tree = valueTree("v", {
    list: [1, "two", 3n, true, null],
    bytes: new Uint8Array([1]),
    map: new Map([["k", 1]]),
  });
  expect(tree).toEqual({
    name: "v",
    children: [
      {
        name: "list",
        children: [
          { name: "[0]", value: 1 },
          { name: "[1]", value: "two" },
          { name: "[2]", value: 3n },
          { name: "[3]", value: true },
          { name: "[4]", note: "nothing" },
        ],
      },
      { name: "bytes", bytes: new Uint8Array([1]) },
      { name: "map", children: [{ name: "k", value: 1 }] },
    ],
  });
});

test("a value that is nested too deeply is refused", () => {
  let value: unknown = 1;
  for (let level = 0; level < 100; level += 1) value = [value];
  expect(() => valueTree("v", value)).toThrow("levels");
});
