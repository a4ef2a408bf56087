import { describe, expect, test } from "bun:test";
import { LoopbackEnd, netFeature } from "../../../devices/net/mod.ts";
import { MAX_NET_FILTER_ADDRESSES } from "../../../src/limits.ts";
import { BROADCAST, frame, MAC, NetRig, type RigOptions, WITH_CONTROL } from "./net-rig.ts";

const [OK, ERROR] = [0, 1];
const RX = 0;
const MAC_CLASS = 1;
const ANNOUNCE = 3;
const MQ = 4;
const OTHER = Uint8Array.of(0x52, 0x54, 0, 0, 0, 7);
const GROUP = Uint8Array.of(1, 0, 0x5e, 0, 0, 1);

const setUp = (options: RigOptions = {}, pairs = 1) =>
  new NetRig((loop) => new LoopbackEnd(loop, pairs), { acked: WITH_CONTROL, ...options });

/** Which of the frames to these addresses arrive. */
function arrived(net: NetRig, targets: readonly Uint8Array[]): number[] {
  net.offer(targets.length);
  for (const [i, to] of targets.entries()) net.send(frame(i, 60 + i, to));
  net.settle();
  const seen: number[] = [];
  for (let used = net.rx().take(); used !== undefined; used = net.rx().take())
    seen.push(used.writtenBytes - 72);
  return seen;
}

const tables = (...lists: readonly (readonly Uint8Array[])[]) =>
  Buffer.concat(
    lists.map((list) => Buffer.concat([Uint8Array.of(list.length & 0xff, list.length >> 8, 0, 0), ...list])),
  );

describe("receive modes", () => {
  const targets = [MAC, OTHER, GROUP, BROADCAST];

  test("as long as the driver says nothing, everything arrives", () => {
    using net = setUp();
    expect(arrived(net, targets)).toEqual([0, 1, 2, 3]);
  });

  // Commands 0 to 5: promisc, allmulti, alluni, nomulti, nouni, nobcast.
  test.each([
    { on: [], expected: [0, 3] },
    { on: [1], expected: [0, 2, 3] },
    { on: [2], expected: [0, 1, 3] },
    { on: [1, 3], expected: [0, 3] },
    { on: [4], expected: [3] },
    { on: [5], expected: [0] },
  ])("promiscuous mode off, then $on on: $expected arrive", ({ on, expected }) => {
    using net = setUp();
    expect(net.control(RX, 0, Uint8Array.of(0))).toBe(OK);
    for (const command of on) expect(net.control(RX, command, Uint8Array.of(1))).toBe(OK);
    expect(arrived(net, targets)).toEqual([...expected]);
  });

  test("tables let their addresses pass, too long ones everything of their kind, and a reset forgets them", () => {
    using net = setUp();
    net.control(RX, 0, Uint8Array.of(0));
    expect(net.control(MAC_CLASS, 0, tables([OTHER], [GROUP]))).toBe(OK);
    const stranger = Uint8Array.of(0x52, 0x54, 0, 0, 0, 8);
    expect(arrived(net, [MAC, OTHER, GROUP, stranger])).toEqual([0, 1, 2]);
    const many = Array.from({ length: MAX_NET_FILTER_ADDRESSES + 1 }, () => OTHER);
    expect(net.control(MAC_CLASS, 0, tables(many, []))).toBe(OK);
    expect(arrived(net, [MAC, OTHER, GROUP, stranger])).toEqual([0, 1, 3]);
    net.suspend();
    net.device.reset();
    net.device.ackFeatures(WITH_CONTROL);
    net.resume();
    expect(arrived(net, targets)).toEqual([0, 1, 2, 3]);
  });

  test("without CTRL_RX there is no filter", () => {
    using net = setUp({ acked: WITH_CONTROL & ~netFeature.CTRL_RX });
    expect(net.control(RX, 0, Uint8Array.of(0))).toBe(ERROR);
    expect(arrived(net, targets)).toEqual([0, 1, 2, 3]);
  });
});

describe("other commands", () => {
  test("a new MAC address is in the config space, and is what passes", () => {
    using net = setUp();
    expect(net.control(MAC_CLASS, 1, OTHER)).toBe(OK);
    expect(net.device.readConfig().subarray(0, 6)).toEqual(OTHER);
    net.control(RX, 0, Uint8Array.of(0));
    expect(arrived(net, [MAC, OTHER])).toEqual([1]);
    expect(net.control(MAC_CLASS, 1, GROUP)).toBe(ERROR);
  });

  test("the number of pairs is one that the device has", () => {
    using net = setUp({ acked: WITH_CONTROL | netFeature.MQ }, 2);
    expect([1, 2, 3, 0].map((pairs) => net.control(MQ, 0, Uint8Array.of(pairs, 0)))).toEqual([
      OK,
      OK,
      ERROR,
      ERROR,
    ]);
  });

  test("what is malformed, unknown or not negotiated is refused, and nothing of it done", () => {
    using net = setUp();
    net.control(RX, 0, Uint8Array.of(0));
    expect(net.control(RX, 6, Uint8Array.of(1))).toBe(ERROR);
    expect(net.control(RX, 0, Uint8Array.of(1, 1))).toBe(ERROR);
    expect(net.control(MQ, 0, Uint8Array.of(1, 0))).toBe(ERROR);
    expect(net.control(9, 0, Uint8Array.of(0))).toBe(ERROR);
    expect(net.control(ANNOUNCE, 1, Uint8Array.of(0))).toBe(ERROR);
    const cut = tables([OTHER], [GROUP]);
    for (const data of [
      cut.subarray(0, 3),
      cut.subarray(0, 12),
      cut.subarray(0, -1),
      Buffer.concat([cut, cut]),
    ]) {
      expect(net.control(MAC_CLASS, 0, new Uint8Array(data))).toBe(ERROR);
    }
    expect(net.control(MAC_CLASS, 0, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0))).toBe(ERROR);
    expect(net.control(MAC_CLASS, 0, new Uint8Array(20_000))).toBe(ERROR);
    expect(arrived(net, [MAC, OTHER])).toEqual([0]);
  });

  test("a command without room for the answer gets none", () => {
    using net = setUp();
    const queue = net.queues.at(-1)!;
    expect(queue.run([{ out: Uint8Array.of(0, 0, 0) }]).writtenBytes).toBe(0);
    expect(queue.run([{ out: Uint8Array.of(0) }, { room: 1 }]).written[0]).toBe(ERROR);
  });
});
