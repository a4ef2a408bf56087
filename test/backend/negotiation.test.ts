import { describe, expect, test } from "bun:test";
import { createMemfd, createPipe, Fd } from "../../src/sys/mod.ts";
import { headerFlag, payloads, protocolFeature, REPLY_FLAGS, virtioFeature } from "../../src/wire/mod.ts";
import { BackendRig } from "../support/backend-rig.ts";
import { TestDevice } from "../support/test-device.ts";

const NEED_REPLY = headerFlag.VERSION | headerFlag.NEED_REPLY;

describe("the owner", () => {
  test("memory, kicks and device state need one; a second is refused", () => {
    using rig = new BackendRig();
    rig.client.setProtocolFeatures(
      protocolFeature.REPLY_ACK | protocolFeature.CONFIGURE_MEM_SLOTS | protocolFeature.DEVICE_STATE,
    );
    const region = rig.region();
    expect(rig.refusal(() => rig.client.setMemTable([region]))).toContain("SET_MEM_TABLE before SET_OWNER");
    expect(rig.refusal(() => rig.client.addMemReg(region))).toContain("ADD_MEM_REG before SET_OWNER");
    expect(rig.refusal(() => rig.client.setVringKick(0, rig.event()))).toContain(
      "SET_VRING_KICK before SET_OWNER",
    );
    using pipe = createPipe();
    expect(() => rig.client.setDeviceStateFd("save", pipe.writeEnd)).toThrow("refused to save");
    rig.client.setOwner();
    expect(rig.refusal(() => rig.client.setOwner())).toContain("has an owner already");
    rig.client.resetOwner();
    rig.client.setMemTable([region]);
    expect(rig.end).toBeUndefined();
  });
});

describe("features", () => {
  test("the handler's own are offered besides the device's, and a device sees only its own", () => {
    using rig = new BackendRig();
    expect(
      rig.client.getFeatures() &
        ((1n << 26n) | (1n << 28n) | (1n << 29n) | (1n << 30n) | (1n << 32n) | (1n << 34n)),
    ).toBe((1n << 26n) | (1n << 28n) | (1n << 29n) | (1n << 30n) | (1n << 32n) | (1n << 34n));
    rig.negotiate(["REPLY_ACK"], 0x5n);
    expect(rig.device.acked).toBe(0x5n);
    expect(rig.handler.session.acked).toBe(0x5n | virtioFeature.VERSION_1 | virtioFeature.PROTOCOL_FEATURES);
  });

  test("what was not offered is refused and changes nothing", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK"], 0x1n);
    const before = rig.handler.session.acked;
    expect(rig.refusal(() => rig.client.setFeatures(1n << 20n))).toContain("not offered: bit 20");
    expect(rig.refusal(() => rig.client.setProtocolFeatures(protocolFeature.XEN_MMAP))).toContain(
      "not offered: XEN_MMAP",
    );
    expect(rig.handler.session.acked).toBe(before);
    expect(rig.device.acked).toBe(0x1n);
  });

  test("a message whose feature was not negotiated is refused", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK"]);
    expect(rig.refusal(() => rig.client.setConfig(0, Uint8Array.of(1)))).toContain(
      "SET_CONFIG: needs CONFIG, which was not negotiated",
    );
    expect(rig.refusal(() => rig.client.vringKick(0))).toContain("needs INBAND_NOTIFICATIONS");
  });

  test("GET_QUEUE_NUM, GET_MAX_MEM_SLOTS, STATUS", () => {
    using rig = new BackendRig({ device: new TestDevice(16) });
    rig.negotiate(["REPLY_ACK", "MQ", "CONFIGURE_MEM_SLOTS", "STATUS"]);
    expect(rig.client.getQueueNum()).toBe(16);
    expect(rig.client.getMaxMemSlots()).toBe(509);
    rig.client.setStatus(7);
    expect(rig.client.getStatus()).toBe(7);
    rig.client.setStatus(0);
    expect(rig.client.getStatus()).toBe(0);
    expect(rig.device.calls).toEqual(["reset"]);
  });
});

describe("refusal", () => {
  test("with NEED_REPLY: a non-zero answer, and the session stays", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK"]);
    const answer = rig.raw(2, payloads.value64.encode({ value: 1n << 63n }), { flags: NEED_REPLY });
    expect(answer).toMatchObject({ request: 2, flags: REPLY_FLAGS });
    expect(rig.client.getFeatures()).not.toBe(0n);
  });

  test("without: logged and closed", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK"]);
    expect(rig.raw(2, payloads.value64.encode({ value: 1n << 63n }))).toBe("closed");
    expect(rig.end).toMatchObject({ kind: "failed", error: { code: "NEGOTIATION" } });
  });

  test("NEED_REPLY without REPLY_ACK is no reason to answer", () => {
    using rig = new BackendRig();
    rig.client.setOwner();
    expect(rig.raw(3, new Uint8Array(0), { flags: NEED_REPLY })).toBe("closed");
    expect(rig.end).toMatchObject({ kind: "failed", error: { code: "STATE" } });
  });

  test.each([0, 46, 999, 1004, 0xffffffff])("message %d is none: refused like any other", (number) => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK"]);
    expect(rig.raw(number, new Uint8Array(0), { flags: NEED_REPLY })).toMatchObject({
      request: number,
      flags: REPLY_FLAGS,
    });
    expect(rig.raw(number)).toBe("closed");
  });

  test("a wrong payload, surplus fds, missing fds", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK"]);
    const refused = { flags: REPLY_FLAGS };
    expect(rig.raw(8, new Uint8Array(7), { flags: NEED_REPLY })).toMatchObject(refused);
    expect(rig.raw(3, new Uint8Array(0), { flags: NEED_REPLY, fds: [rig.event()] })).toMatchObject(refused);
    expect(rig.raw(12, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0), { flags: NEED_REPLY })).toMatchObject(refused);
    expect(
      rig.raw(12, Uint8Array.of(0, 1, 0, 0, 0, 0, 0, 0), { flags: NEED_REPLY, fds: [rig.event()] }),
    ).toMatchObject(refused);
    expect(rig.raw(21, new Uint8Array(0), { flags: NEED_REPLY, fds: [rig.event()] })).toMatchObject({
      request: 21,
    });
    expect(rig.end).toBeUndefined();
  });

  test("what makes no sense here is decoded and refused", () => {
    class OddDevice extends TestDevice {
      override readonly protocolFeatures =
        protocolFeature.CROSS_ENDIAN | protocolFeature.CRYPTO_SESSION | protocolFeature.XEN_MMAP;
    }
    using rig = new BackendRig({ device: new OddDevice() });
    rig.negotiate(["REPLY_ACK", "CROSS_ENDIAN", "CRYPTO_SESSION"]);
    const state = (index: number, num: number) => payloads.vringState.encode({ index, num });
    expect(rig.raw(23, state(0, 0), { flags: NEED_REPLY })).toMatchObject({ payload: new Uint8Array(8) });
    expect(rig.refusal(() => answered(rig, 23, state(0, 1)))).toContain("big-endian rings are not supported");
    expect(rig.refusal(() => answered(rig, 27, payloads.value64.encode({ value: 1n })))).toContain(
      "no crypto engine",
    );
    expect(rig.refusal(() => answered(rig, 33, undefined, [rig.event()]))).toContain("not a GPU");
    // A reply by nature without an error form: the session ends.
    expect(rig.raw(26, new Uint8Array(16))).toBe("closed");
  });
});

/** A request with NEED_REPLY; a non-zero acknowledgement throws as the client's own would. */
function answered(rig: BackendRig, request: number, payload?: Uint8Array, fds: readonly Fd[] = []): void {
  rig.client.channel.send(
    { ...rig.table.frontend.get(request)!, payload: { encode: () => payload ?? new Uint8Array(0) } } as never,
    {} as never,
    { fds },
  );
}

describe("config space", () => {
  test("reads and writes within bounds; outside: GET_CONFIG's own error form, and a refusal", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK", "CONFIG"]);
    expect([...rig.client.getConfig(8, 8)]).toEqual([2, 0, 0, 0, 0, 0, 0, 0]);
    expect(rig.client.getConfig(0, 16).length).toBe(16);
    for (const [offset, size] of [
      [0, 17],
      [16, 1],
      [15, 2],
      [0xffffffff, 1],
    ] as const) {
      expect(() => rig.client.getConfig(offset, size)).toThrow("has no config bytes");
      expect(rig.refusal(() => rig.client.setConfig(offset, new Uint8Array(size)))).toContain(
        "of a config space of 16",
      );
    }
    rig.client.setConfig(4, Uint8Array.of(9, 8));
    expect([...rig.client.getConfig(3, 4)]).toEqual([0, 9, 8, 0]);
  });

  test("MTU and RARP reach the device", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK", "MTU", "RARP"]);
    rig.client.netSetMtu(1500);
    rig.client.sendRarp(Uint8Array.of(1, 2, 3, 4, 5, 6));
    expect(rig.device.mtu).toBe(1500);
    expect([...rig.device.mac!]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(rig.refusal(() => rig.client.netSetMtu(67))).toContain("expected 68 to 65535");
  });
});

describe("the session's end", () => {
  test("what a front-end gave is closed when it hangs up, and the device can serve the next", () => {
    const rig = new BackendRig();
    rig.negotiate(["REPLY_ACK", "INFLIGHT_SHMFD", "LOG_SHMFD", "BACKEND_REQ"]).shareMemory().ring().start();
    rig.client.setVringErr(1, rig.event());
    using log = createMemfd("log", 4096);
    rig.client.setLogBase({ sizeBytes: 4096, offset: 0 }, log);
    rig.client[Symbol.dispose]();
    rig.settle();
    expect(rig.end).toEqual({ kind: "disconnected" });
    expect(rig.device.calls.slice(-2)).toEqual(["stop 0", "suspend"]);
    expect(Fd.liveLabels().filter((label) => label === "fd from peer")).toEqual([]);
    rig[Symbol.dispose]();
  });
});
