import { expect, test } from "bun:test";
import { FormatError } from "../../src/errors.ts";
import { validateMsgpack } from "../../src/state/validate-msgpack.ts";

const check = (...bytes: number[]) => validateMsgpack(Uint8Array.from(bytes), "value", 100);
const nested = (levels: number) => [...new Array<number>(levels).fill(0x91), 0xc0];

test("takes what a state is made of", () => {
  check(0xc0);
  check(0x82, 0xa1, 0x61, 0x01, 0xa1, 0x62, 0x92, 0xc2, 0xc3);
  check(0xcf, 1, 2, 3, 4, 5, 6, 7, 8);
  check(0xcb, 1, 2, 3, 4, 5, 6, 7, 8);
  check(0xc4, 2, 1, 2);
  check(0xd9, 2, 0xc3, 0xa9);
  check(0xdc, 0, 1, 0xff);
  check(...nested(32));
});

test.each([
  ["33 levels", nested(33), "levels"],
  ["10,000 levels", nested(10_000), "levels"],
  ["a duplicate key", [0x82, 0xa1, 0x61, 1, 0xa1, 0x61, 2], "duplicate key"],
  ["the same key in another form", [0x82, 0xa1, 0x61, 1, 0xd9, 1, 0x61, 2], "duplicate key"],
  ["a key that is no string", [0x81, 1, 1], "not a string"],
  ["__proto__", [0x81, 0xa9, ...Buffer.from("__proto__"), 1], "__proto__"],
  ["invalid UTF-8", [0xa2, 0xc3, 0x28], "UTF-8"],
  ["a lone surrogate", [0xa3, 0xed, 0xa0, 0x80], "UTF-8"],
  ["a record definition", [0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 1], "0xd4"],
  ["an extension", [0xc7, 1, 0, 0], "0xc7"],
  ["the byte that is never used", [0xc1], "0xc1"],
  ["a long string", [0xdb, 0xff, 0xff, 0xff, 0xff], "announced"],
  ["a long array", [0xdd, 0xff, 0xff, 0xff, 0xff, 0], "do not fit"],
  ["a long map", [0xdf, 0xff, 0xff, 0xff, 0xff, 0], "do not fit"],
  ["a cut number", [0xcf, 1], "announced"],
  ["nothing", [], "ends inside"],
  ["a second value", [1, 2], "follow"],
])("refuses %s", (_name, bytes, message) => {
  const act = () => check(...(bytes as number[]));
  expect(act).toThrow(FormatError);
  expect(act).toThrow(message as string);
});

test("refuses more items than fit in memory", () => {
  const count = (1 << 20) + 1;
  const bytes = new Uint8Array(5 + count);
  bytes[0] = 0xdd;
  new DataView(bytes.buffer).setUint32(1, count);
  expect(() => validateMsgpack(bytes, "value", 0)).toThrow("items");
});
