import { describe, expect, test } from "bun:test";
import { ProtocolError } from "../../src/errors.ts";
import {
  backendMessages,
  crosvm2024BackendMessages,
  frontendMessages,
  type Message,
} from "../../src/wire/mod.ts";
import { fromHex } from "./golden.ts";

function fault(decode: () => unknown): ProtocolError {
  try {
    decode();
  } catch (error) {
    if (error instanceof ProtocolError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

const refused = (message: Message, hex: string): string =>
  fault(() => message.payload.decode(fromHex(hex), message.name)).path;
const f = frontendMessages;
const FULL = "ffffffffffffffff";

describe("payloads that are refused, and the field that is named", () => {
  test("a wrong size", () => {
    const error = fault(() => f.SET_VRING_NUM.payload.decode(new Uint8Array(7), "SET_VRING_NUM"));
    expect([error.request, error.path, error.code]).toEqual(["SET_VRING_NUM", "", "PROTOCOL"]);
    expect(error.message).toContain("payload of 7 bytes, expected 8");
    expect(refused(f.GET_FEATURES, "00")).toBe("");
    expect(refused(f.SET_VRING_ADDR, "00".repeat(41))).toBe("");
  });

  test("an address above 2^53-1", () => {
    expect(refused(f.SET_VRING_ADDR, `0000000000000000 ${"00".repeat(8)} ${FULL} ${"00".repeat(16)}`)).toBe(
      "used",
    );
    const largest = `0000000000000000 ffffffffffff1f00 ${"00".repeat(24)}`;
    expect(f.SET_VRING_ADDR.payload.decode(fromHex(largest), "").descriptor).toBe(Number.MAX_SAFE_INTEGER);
    expect(refused(f.SET_VRING_ADDR, largest.replace("1f00", "2000"))).toBe("descriptor");
    expect(refused(f.ADD_MEM_REG, `${"00".repeat(24)} ${FULL} ${"00".repeat(8)}`)).toBe("region.userAddress");
  });

  test("unknown bits beside a ring index", () => {
    expect(refused(f.SET_VRING_KICK, "0002000000000000")).toBe("noFd");
    expect(refused(f.SET_VRING_CALL, "0000010000000000")).toBe("reserved");
    expect(refused(f.SET_VRING_ERR, "0000000000000080")).toBe("reserved");
    expect(refused(backendMessages.VRING_HOST_NOTIFIER_MSG, `0004${"00".repeat(22)}`)).toBe("noFd");
  });

  test("a memory table whose count is not that of its regions, or too large", () => {
    const region = "00".repeat(32);
    expect(refused(f.SET_MEM_TABLE, `0200000000000000 ${region}`)).toBe("numRegions");
    expect(refused(f.SET_MEM_TABLE, `0000000000000000 ${region}`)).toBe("numRegions");
    expect(refused(f.SET_MEM_TABLE, `0900000000000000 ${region.repeat(8)}`)).toBe("numRegions");
    expect(refused(f.SET_MEM_TABLE, `0100000000000000 ${region}00`)).toBe("numRegions");
    const third = `0300000000000000 ${region.repeat(2)} 0000000000000000 ${FULL} ${"00".repeat(16)}`;
    expect(refused(f.SET_MEM_TABLE, third)).toBe("regions[2].sizeBytes");
  });

  test("a config access whose length is not that of its bytes, or too large", () => {
    expect(refused(f.GET_CONFIG, "00000000 04000000 00000000 000000")).toBe("sizeBytes");
    expect(refused(f.GET_CONFIG, `00000000 01010000 00000000 ${"00".repeat(256)}`)).toBe("sizeBytes");
    expect(refused(f.SET_CONFIG, "00000000 ffffffff 00000000")).toBe("sizeBytes");
    expect(refused(f.SET_CONFIG, "00".repeat(12 + 257))).toBe("");
  });

  test("a mapping of crosvm 2024 that can neither be read nor written", () => {
    expect(refused(crosvm2024BackendMessages.SHMEM_MAP, "00".repeat(32))).toBe("flags");
  });

  test("replies: GET_CONFIG between nothing and its header, SET_LOG_BASE of other sizes", () => {
    expect(fault(() => f.GET_CONFIG.reply!.decode(new Uint8Array(11), "GET_CONFIG")).path).toBe("");
    expect(fault(() => f.SET_LOG_BASE.reply!.decode(new Uint8Array(4), "SET_LOG_BASE")).path).toBe("payload");
    expect(fault(() => f.GET_SHARED_OBJECT.reply!.decode(new Uint8Array(8), "GET_SHARED_OBJECT")).path).toBe(
      "payload",
    );
  });
});

describe("what peers differ in is accepted", () => {
  test("padding with rubbish in it, which is encoded as 0", () => {
    const wire = fromHex("4020000000000000 0000000000000000 0200 8000 deadbeef");
    const value = f.GET_INFLIGHT_FD.payload.decode(wire, "");
    expect(value).toEqual({ sizeBytes: 0x2040, mmapOffset: 0, numQueues: 2, queueSize: 128 });
    expect([...f.GET_INFLIGHT_FD.payload.encode(value).subarray(20)]).toEqual([0, 0, 0, 0]);
  });

  test("a GET_CONFIG error in both forms", () => {
    const failed = { offset: 0, sizeBytes: 0, flags: 0, payload: new Uint8Array(0) };
    expect(f.GET_CONFIG.reply!.decode(new Uint8Array(0), "")).toEqual(failed);
    expect(f.GET_CONFIG.reply!.decode(new Uint8Array(12), "")).toEqual(failed);
    expect(f.GET_CONFIG.reply!.encode(failed).length).toBe(12);
  });

  test("a SET_LOG_BASE reply of 0, 8 and 16 bytes", () => {
    for (const sizeBytes of [0, 8, 16]) {
      expect(f.SET_LOG_BASE.reply!.decode(new Uint8Array(sizeBytes), "").payload.length).toBe(sizeBytes);
    }
  });

  test("an empty memory table and one of 8 regions", () => {
    expect(f.SET_MEM_TABLE.payload.decode(new Uint8Array(8), "")).toEqual({ regions: [] });
    const full = fromHex(`0800000000000000 ${"00".repeat(256)}`);
    expect(f.SET_MEM_TABLE.payload.decode(full, "").regions.length).toBe(8);
  });
});

describe("values that do not fit are our own bug", () => {
  const bad = (message: Message, value: unknown) => () => message.payload.encode(value);
  test("each kind of field asserts", () => {
    const region = { guestAddress: 0, sizeBytes: 1, userAddress: 0, mmapOffset: 0 };
    expect(bad(f.SET_VRING_NUM, { index: -1, num: 0 })).toThrow("does not fit in u32");
    expect(bad(f.SET_VRING_NUM, { index: 0, num: 2 ** 32 })).toThrow("does not fit in u32");
    expect(bad(f.SET_VRING_KICK, { index: 256, noFd: false })).toThrow("does not fit in u8");
    expect(bad(f.SET_FEATURES, { value: 1n << 64n })).toThrow("does not fit in mask64");
    expect(bad(f.SET_FEATURES, { value: 1 })).toThrow("does not fit in mask64");
    expect(bad(f.ADD_MEM_REG, { region: { ...region, sizeBytes: 0.5 } })).toThrow("u64 below 2^53");
    expect(bad(f.ADD_MEM_REG, { region: { ...region, sizeBytes: 2 ** 53 } })).toThrow("u64 below 2^53");
    expect(bad(f.SET_MEM_TABLE, { regions: Array(9).fill(region) })).toThrow("9 elements");
    const config = { offset: 0, sizeBytes: 5, flags: 0, payload: new Uint8Array(4) };
    expect(bad(f.SET_CONFIG, config)).toThrow("does not fit in sizeBytes = 4");
    expect(bad(f.GET_SHARED_OBJECT, { uuid: new Uint8Array(15) })).toThrow("15 bytes");
  });

  test("decoded bytes are copies", () => {
    const wire = fromHex("08000000 04000000 01000000 7e000001");
    const value = f.GET_CONFIG.payload.decode(wire, "");
    wire.fill(0xff);
    expect([...value.payload]).toEqual([0x7e, 0, 0, 1]);
  });
});
