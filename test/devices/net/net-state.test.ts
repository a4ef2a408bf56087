import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { LoopbackEnd, NetDevice, type NetOptions, netFeature } from "../../../devices/net/mod.ts";
import { CompatibilityError, FormatError } from "../../../src/errors.ts";
import { decodeState, encodeState } from "../../../src/state/mod.ts";
import { EventLoop } from "../../../src/sys/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import { BROADCAST, frame, MAC, NetRig, WITH_CONTROL } from "./net-rig.ts";

const OTHER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 7);
const ANNOUNCE = 2;

function device(loop: EventLoop, options: NetOptions = {}, pairs = 1): NetDevice {
  return new NetDevice(new LoopbackEnd(loop, pairs), loop, options);
}

const macOf = (net: NetDevice) => net.readConfig().subarray(0, 6);

describe("restore", () => {
  test("frames, MTU, address and receive modes go along; a guest that can is asked to announce itself", () => {
    using net = new NetRig((loop) => new LoopbackEnd(loop), { acked: WITH_CONTROL });
    net.control(1, 1, OTHER);
    net.control(0, 0, Uint8Array.of(0));
    net.device.setMtu(1400);
    for (let i = 0; i < 3; i++) net.send(frame(i, 500, OTHER));
    net.suspend();
    const state = saveDevice(net.device);
    const next = device(net.loop);
    loadDevice(next, state);
    next.ackFeatures(WITH_CONTROL);
    expect(next.readConfig()[6]! & ANNOUNCE).toBe(0);
    net.moveTo(next);
    expect([...next.readConfig()]).toEqual([...OTHER, 1 | ANNOUNCE, 0, 1, 0, 0x78, 0x05]);
    net.offer(8);
    for (let i = 0; i < 3; i++) expect(net.receive()).toEqual(frame(i, 500, OTHER));
    expect(net.control(3, 0, new Uint8Array(0))).toBe(0);
    expect(next.readConfig()[6]! & ANNOUNCE).toBe(0);
    for (const to of [MAC, OTHER, BROADCAST]) net.send(frame(1, 60, to));
    expect(net.receive()).toEqual(frame(1, 60, OTHER));
    expect(net.receive()).toEqual(frame(1, 60, BROADCAST));
    net.suspend();
    next.enterSuspendedState();
  });

  test("a guest that cannot announce itself, or whose front-end has the control queue, is not asked", () => {
    using net = new NetRig((loop) => new LoopbackEnd(loop));
    net.suspend();
    const state = saveDevice(net.device);
    for (const acked of [netFeature.GUEST_ANNOUNCE, WITH_CONTROL & ~netFeature.GUEST_ANNOUNCE]) {
      const next = device(net.loop);
      loadDevice(next, state);
      next.ackFeatures(acked);
      net.moveTo(next);
      expect(next.readConfig()[6]).toBe(1);
      net.suspend();
      next.enterSuspendedState();
    }
  });

  test("a device with an address of its own refuses the state of another; one without takes it", () => {
    using loop = new EventLoop();
    const state = saveDevice(device(loop, { mac: MAC }));
    expect(() => loadDevice(device(loop, { mac: OTHER }), state)).toThrow(
      /52:54:00:00:00:02.*52:54:00:00:00:07/,
    );
    const random = device(loop);
    loadDevice(random, state);
    expect(macOf(random)).toEqual(MAC);
    loadDevice(device(loop, { mac: MAC }), state);
  });

  test("an address that the driver has set goes along, and is gone after a reset", () => {
    using net = new NetRig((loop) => new LoopbackEnd(loop), { acked: WITH_CONTROL });
    expect(net.control(1, 1, OTHER)).toBe(0);
    net.suspend();
    const state = saveDevice(net.device);
    for (const options of [{ mac: MAC }, {}]) {
      const next = device(net.loop, options);
      loadDevice(next, state);
      expect(macOf(next)).toEqual(OTHER);
      next.reset();
      expect(macOf(next)).toEqual(MAC);
    }
    expect(() => loadDevice(device(net.loop, { mac: OTHER }), state)).toThrow(CompatibilityError);
  });

  test("a state of version 1 loads for ever, with its frames", () => {
    const fixture = readFileSync(join(import.meta.dirname, "../../fixtures/net-state-v1.bin"));
    expect(decodeState(fixture).header.version).toBe(1);
    using net = new NetRig((loop) => new LoopbackEnd(loop));
    net.suspend();
    loadDevice(net.device, fixture);
    expect([macOf(net.device), Buffer.from(net.device.readConfig()).readUInt16LE(10)]).toEqual([MAC, 1400]);
    net.resume();
    net.offer(4);
    expect([net.receive(), net.receive()]).toEqual([frame(0, 64), frame(1, 65)]);
    expect(decodeState(saveDevice(net.device)).header.version).toBe(2);
  });

  test("the number of queue pairs has to be the same", () => {
    using loop = new EventLoop();
    const state = saveDevice(device(loop, { mac: MAC }, 2));
    expect(() => loadDevice(device(loop, { mac: MAC }), state)).toThrow(CompatibilityError);
    loadDevice(device(loop, { mac: MAC }, 2), state);
  });

  test("saving what was loaded gives the same bytes", () => {
    using net = new NetRig((loop) => new LoopbackEnd(loop));
    for (let i = 0; i < 5; i++) net.send(frame(i, 100 + i));
    net.suspend();
    const state = saveDevice(net.device);
    const next = device(net.loop);
    loadDevice(next, state);
    expect(saveDevice(next)).toEqual(state);
  });

  const bad: readonly [string, Record<string, unknown>][] = [
    ["a short address", { mac: new Uint8Array(5) }],
    ["a short address of its own", { configuredMac: new Uint8Array(5) }],
    ["an impossible MTU", { mtu: 67 }],
    ["more active pairs than there are", { activePairs: 2 }],
    ["unknown receive modes", { rxModes: 64 }],
    ["a table that is too long", { unicast: new Uint8Array(6 * 65) }],
    ["a frame that is cut off", { frames0: Uint8Array.of(0, 0, 0, 60, 1, 2) }],
    ["a frame without a header", { frames0: Uint8Array.of(0, 0, 0, 1, 1) }],
    ["half a length", { frames0: Uint8Array.of(0, 0) }],
    ["a frame beyond the limit", { outgoing0: new Uint8Array(70_000) }],
    ["a frame that is too short", { outgoing0: new Uint8Array(20) }],
    ["more sent than there is", { sentBytes0: 1 }],
    ["a field that is not known", { surprise: 1 }],
  ];
  test.each(bad)("%s is refused, and the device is as it was", (_name, wrong) => {
    using loop = new EventLoop();
    const net = device(loop, { mac: MAC });
    const before = saveDevice(net);
    const decoded = decodeState(before);
    const value = { ...(decoded.sections.get("state") as Record<string, unknown>), ...wrong };
    const bytes = Buffer.concat([...encodeState(decoded.header, [{ name: "state", value }])]);
    expect(() => loadDevice(net, new Uint8Array(bytes))).toThrow(FormatError);
    expect(saveDevice(net)).toEqual(before);
  });
});
