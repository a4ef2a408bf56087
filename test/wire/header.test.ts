import { expect, test } from "bun:test";
import { ProtocolError } from "../../src/errors.ts";
import { MAX_PAYLOAD_BYTES } from "../../src/limits.ts";
import {
  checkReplyHeader,
  checkRequestHeader,
  decodeHeader,
  encodeHeader,
  HEADER_BYTES,
  headerFlag,
  needsReply,
  REPLY_FLAGS,
} from "../../src/wire/mod.ts";

const header = (request: number, flags: number, size = 0) => ({ request, flags, size });
const path = (check: () => void): string => {
  try {
    check();
  } catch (error) {
    if (error instanceof ProtocolError) return error.path;
    throw error;
  }
  return "accepted";
};

test("golden bytes, both ways", () => {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  encodeHeader(view, 37, headerFlag.VERSION | headerFlag.NEED_REPLY, 40);
  expect(Buffer.from(view.buffer).toString("hex")).toBe("250000000900000028000000");
  expect(decodeHeader(view)).toEqual(header(37, 9, 40));
  expect(needsReply(decodeHeader(view))).toBe(true);
  expect(needsReply(header(1, 1))).toBe(false);
  encodeHeader(view, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff);
  expect(decodeHeader(view)).toEqual(header(0xffff_ffff, 0xffff_ffff, 0xffff_ffff));
});

test("a request has version 1, no REPLY bit, no unknown bit and a payload within the limit", () => {
  expect(path(() => checkRequestHeader(header(1, 1)))).toBe("accepted");
  expect(path(() => checkRequestHeader(header(1, 9, MAX_PAYLOAD_BYTES)))).toBe("accepted");
  for (const flags of [0, 2, 3, 5, 0xd, 0x11, 0x8000_0001]) {
    expect(path(() => checkRequestHeader(header(1, flags)))).toBe("flags");
  }
  expect(path(() => checkRequestHeader(header(1, 1, MAX_PAYLOAD_BYTES + 1)))).toBe("size");
  expect(path(() => checkRequestHeader(header(1, 1, 9), "GET_FEATURES", 8))).toBe("size");
});

test("a reply has flags 0x5 exactly and the request's number", () => {
  expect(path(() => checkReplyHeader(header(1, REPLY_FLAGS, 8), 1))).toBe("accepted");
  expect(path(() => checkReplyHeader(header(2, REPLY_FLAGS, 8), 1))).toBe("request");
  for (const flags of [0, 1, 4, 6, 7, 0xd, 0x15, 0x8000_0005]) {
    expect(path(() => checkReplyHeader(header(1, flags), 1))).toBe("flags");
  }
  expect(path(() => checkReplyHeader(header(1, REPLY_FLAGS, 0xffff_ffff), 1))).toBe("size");
});

test("the error names the message where its name is known", () => {
  expect(() => checkReplyHeader(header(1, 1), 1, MAX_PAYLOAD_BYTES, "GET_FEATURES")).toThrow(
    "GET_FEATURES.flags",
  );
  expect(() => checkRequestHeader(header(77, 0))).toThrow("77.flags: version 0, expected 1");
});
