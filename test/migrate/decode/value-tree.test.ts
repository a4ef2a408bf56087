import { expect, test } from "bun:test";
import { diffTrees, valueTree } from "../../../migrate/decode/mod.ts";

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

test("trees differ field by field; names that repeat are told apart", () => {
  const tree = (value: unknown) => valueTree("state", value);
  expect(diffTrees(tree({ a: { b: [1, 2] } }), tree({ a: { b: [1, 2] } }))).toEqual([]);
  const paths = (before: unknown, after: unknown) =>
    diffTrees(tree(before), tree(after)).map(({ path }) => path);
  expect(paths({ a: { b: [1, 2], c: 1 } }, { a: { b: [1, 3] }, d: 1 })).toEqual(["a.b[1]", "a.c", "d"]);
  expect(paths({ a: new Uint8Array([1]) }, { a: new Uint8Array([2]) })).toEqual(["a"]);
  expect(paths({ a: 1 }, { a: { b: 1 } })).toEqual(["a"]);
  const twice = (value: number) => ({
    name: "s",
    children: [
      { name: "x", value: 1 },
      { name: "x", value },
    ],
  });
  expect(diffTrees(twice(1), twice(2)).map(({ path }) => path)).toEqual(["x#2"]);
});
