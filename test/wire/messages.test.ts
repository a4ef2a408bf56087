import { describe, expect, test } from "bun:test";
import {
  backendMessages,
  type Codec,
  crosvm2024BackendMessages,
  crosvm2024FrontendMessages,
  crosvmBackendMessages,
  frontendMessages,
  type Message,
} from "../../src/wire/mod.ts";
import { backendGolden, crosvm2024Golden, fromHex, frontendGolden } from "./golden.ts";

type AnyGolden = Readonly<
  Record<
    string,
    { request: readonly [unknown, string] | undefined; reply: readonly [unknown, string] | undefined }
  >
>;

function both(codec: Codec<unknown>, golden: readonly [unknown, string], name: string): void {
  const [value, hex] = golden;
  const wire = fromHex(hex);
  expect(Buffer.from(codec.encode(value)).toString("hex")).toBe(Buffer.from(wire).toString("hex"));
  expect(codec.decode(wire, name)).toEqual(value);
  // At an odd offset of a buffer that was in use: every byte is written, padding too, and none beside them.
  const used = new Uint8Array(wire.length + 9).fill(0xee);
  const shifted = new DataView(used.buffer);
  expect(codec.encodeInto(value, shifted, 5)).toBe(wire.length);
  expect([...used]).toEqual([...Array(5).fill(0xee), ...wire, ...Array(4).fill(0xee)]);
  expect(codec.decodeFrom(shifted, 5, wire.length, name)).toEqual(value);
}

function checkAll(title: string, table: Readonly<Record<string, Message>>, golden: AnyGolden): void {
  describe(title, () => {
    for (const [name, message] of Object.entries(table)) {
      test(`${message.number} ${name}`, () => {
        const rows = golden[name]!;
        both(message.payload, rows.request!, name);
        expect(rows.reply === undefined).toBe(message.reply === undefined);
        if (message.reply !== undefined) both(message.reply, rows.reply!, name);
      });
    }
  });
}

checkAll(
  "front-end messages, golden bytes",
  { ...frontendMessages, ...crosvm2024FrontendMessages },
  frontendGolden,
);
checkAll("back-end messages, golden bytes", { ...backendMessages, ...crosvmBackendMessages }, backendGolden);
checkAll("crosvm 2024 messages, golden bytes", crosvm2024BackendMessages, crosvm2024Golden);

describe("the tables", () => {
  test("have every number of the spec, once", () => {
    const numbers = (table: object) => Object.values(table).map((message: Message) => message.number);
    expect(numbers(frontendMessages)).toEqual(Array.from({ length: 45 }, (_, i) => i + 1));
    expect(numbers(backendMessages)).toEqual(Array.from({ length: 10 }, (_, i) => i + 1));
  });

  test("have the sizes that a C compiler gives", () => {
    const sizes = (message: Message) => [message.sizeBytes, message.replySizeBytes];
    const fixed = (n: number) => ({ min: n, max: n });
    const f = frontendMessages;
    expect(sizes(f.SET_VRING_NUM)).toEqual([fixed(8), undefined]);
    expect(sizes(f.SET_VRING_ADDR)).toEqual([fixed(40), undefined]);
    expect(sizes(f.SET_MEM_TABLE)).toEqual([
      { min: 8, max: 264 },
      { min: 8, max: 264 },
    ]);
    expect(sizes(f.ADD_MEM_REG)).toEqual([fixed(40), fixed(40)]);
    expect(sizes(f.IOTLB_MSG)).toEqual([fixed(32), fixed(8)]);
    expect(sizes(f.GET_INFLIGHT_FD)).toEqual([fixed(24), fixed(24)]);
    expect(sizes(f.SET_DEVICE_STATE_FD)).toEqual([fixed(8), fixed(8)]);
    expect(sizes(f.GET_SHMEM_CONFIG)).toEqual([fixed(0), fixed(2056)]);
    expect(sizes(backendMessages.SHMEM_MAP)).toEqual([fixed(40), undefined]);
    expect(sizes(backendMessages.VRING_HOST_NOTIFIER_MSG)).toEqual([fixed(24), undefined]);
    expect(sizes(crosvmBackendMessages.GPU_MAP)).toEqual([fixed(64), fixed(8)]);
    expect(sizes(crosvmBackendMessages.EXTERNAL_MAP)).toEqual([fixed(32), fixed(8)]);
  });

  test("say how each message is answered and what may come with it", () => {
    const rule = (message: Message) => message.replyRule;
    const f = frontendMessages;
    expect([rule(f.SET_FEATURES), rule(f.GET_FEATURES)]).toEqual(["ack", "always"]);
    expect([rule(f.SET_LOG_BASE), rule(f.SET_MEM_TABLE), rule(f.ADD_MEM_REG)]).toEqual([
      "log-shmfd",
      "postcopy",
      "postcopy",
    ]);
    expect([rule(f.IOTLB_MSG), rule(backendMessages.IOTLB_MSG)]).toEqual(["always", "ack"]);
    expect(f.SET_MEM_TABLE.fds).toEqual({ min: 0, max: 8 });
    expect([f.SET_DEVICE_STATE_FD.fds, f.SET_DEVICE_STATE_FD.replyFds]).toEqual([
      { min: 1, max: 1 },
      { min: 0, max: 1 },
    ]);
    expect(f.POSTCOPY_ADVISE.replyFds).toEqual({ min: 0, max: 1 });
  });

  test("gate the messages as the spec does", () => {
    expect(frontendMessages.SET_OWNER.gate).toEqual({ space: "none" });
    expect(frontendMessages.GET_CONFIG.gate).toEqual({
      space: "protocol",
      mask: 1n << 9n,
      when: "negotiated",
    });
    expect(frontendMessages.GET_PROTOCOL_FEATURES.gate).toEqual({
      space: "virtio",
      mask: 1n << 30n,
      when: "offered",
    });
    expect(backendMessages.VRING_HOST_NOTIFIER_MSG.gate).toEqual({
      space: "protocol",
      mask: (1n << 11n) | (1n << 10n),
      when: "negotiated",
    });
  });
});
