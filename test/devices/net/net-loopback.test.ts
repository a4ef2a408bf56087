import { describe, expect, test } from "bun:test";
import { LoopbackEnd, NetDevice, netFeature } from "../../../devices/net/mod.ts";
import { UsageError } from "../../../src/errors.ts";
import { EventLoop } from "../../../src/sys/mod.ts";
import { frame, HEADER_BYTES, MAC, NetRig, type RigOptions, WITH_CONTROL } from "./net-rig.ts";

const loopback = (options: RigOptions = {}, pairs = 1) =>
  new NetRig((loop) => new LoopbackEnd(loop, pairs), options);
const LONG_MS = 3_600_000;

describe("frames", () => {
  test.each([false, true])(
    "come back in order, and the driver is interrupted per batch (packed: %p)",
    (packed) => {
      using net = loopback({ packed });
      net.offer(32);
      for (let i = 0; i < 20; i++)
        net.tx().add([{ out: new Uint8Array(HEADER_BYTES) }, { out: frame(i, 60 + i * 70) }]);
      net.tx().kick();
      for (let i = 0; i < 20; i++) expect(net.receive()).toEqual(frame(i, 60 + i * 70));
      expect([net.rx().calls, net.tx().calls]).toEqual([1, 1]);
    },
  );

  test("one that is larger than a buffer is spread over as many as it needs", () => {
    using net = loopback();
    net.offer(40, 1536);
    net.send(frame(1, 50_000));
    net.send(frame(2, 60));
    const large = net.receive();
    expect(large).toEqual(frame(1, 50_000));
    expect(net.receive()).toEqual(frame(2, 60));
  });

  test("without MRG_RXBUF one that is larger than its buffer is dropped, and its buffer serves the next", () => {
    using net = loopback({ acked: 0n });
    net.offer(1, 1000);
    net.send(frame(1, 2000));
    net.send(frame(2, 500));
    expect(net.receive()).toEqual(frame(2, 500));
    expect(net.logger.lines.map(({ level }) => level)).toEqual(["warn"]);
  });

  test("wait for buffers, and hold the sender back when they are too many; none is lost", () => {
    using net = loopback({ size: 256 });
    let sent = 0;
    for (; sent < 60; sent++) net.send(frame(sent, 10_000));
    net.settle();
    const taken = () => {
      let count = 0;
      while (net.tx().take() !== undefined) count++;
      return count;
    };
    expect(taken()).toBeLessThan(30);
    for (let i = 0; i < 60; i++) {
      net.offer(1, 10_100);
      expect(net.receive()).toEqual(frame(i, 10_000));
    }
    net.settle();
    expect(taken()).toBeGreaterThan(30);
  });

  test("one for which there will never be enough buffers is dropped", () => {
    using net = loopback({ size: 4 });
    net.offer(4, 100);
    net.send(frame(1, 5000));
    net.send(frame(2, 60));
    expect(net.receive()).toEqual(frame(2, 60));
    expect(net.logger.lines).toHaveLength(1);
  });

  test("of an impossible size are dropped and told of", () => {
    using net = loopback();
    net.offer(4);
    net.tx().run([{ out: new Uint8Array(20) }]);
    net.tx().run([{ room: 100 }]);
    net.tx().run([{ out: new Uint8Array(80_000) }]);
    net.send(frame(1));
    expect(net.receive()).toEqual(frame(1));
    expect(net.logger.lines).toHaveLength(3);
  });

  test("in hundreds of pieces, and with the header in several, arrive whole", () => {
    using net = loopback({ size: 1024 });
    net.offer(4);
    const bytes = frame(1, 600);
    const pieces = Array.from({ length: 600 }, (_, i) => ({ out: bytes.slice(i, i + 1) }));
    net.tx().add([{ out: new Uint8Array(5) }, { out: new Uint8Array(7) }, ...pieces]);
    net.tx().kick();
    expect(net.receive()).toEqual(bytes);
  });

  test("go from one device to another over a pair of ends, each queue pair by itself", () => {
    using loop = new EventLoop();
    const [one, two] = LoopbackEnd.pair(loop, 2);
    using a = new NetRig(() => one, { loop, acked: netFeature.MRG_RXBUF | netFeature.MQ });
    using b = new NetRig(() => two, { loop, acked: netFeature.MRG_RXBUF | netFeature.MQ });
    for (const pair of [0, 1]) b.offer(4, 2048, pair);
    a.send(frame(1), 1);
    a.send(frame(2), 0);
    expect(b.receive(1)).toEqual(frame(1));
    expect(b.receive(0)).toEqual(frame(2));
    expect(a.rx().take()).toBeUndefined();
  });
});

describe("offloads", () => {
  const NEEDS_CSUM = 1;
  const GSO_TCPV4 = 1;
  const sendWith = (net: NetRig, flags: number, gso: number, bytes: Uint8Array) => {
    const header = new Uint8Array(HEADER_BYTES);
    header.set([flags, gso, 54, 0, 0xb4, 5, 34, 0, 16, 0]);
    net.tx().run([{ out: header }, { out: bytes }]);
    return header;
  };

  test("what both sides agreed upon passes as it is, header and all", () => {
    const { GUEST_CSUM, GUEST_TSO4, CSUM, HOST_TSO4, MRG_RXBUF } = netFeature;
    using net = loopback({ acked: MRG_RXBUF | GUEST_CSUM | GUEST_TSO4 | CSUM | HOST_TSO4 });
    net.offer(1, 70_000);
    const header = sendWith(net, NEEDS_CSUM, GSO_TCPV4, frame(1, 60_000));
    const used = net.await(() => net.rx().take());
    header.set([1, 0], 10);
    expect(used.written.subarray(0, HEADER_BYTES)).toEqual(Buffer.from(header));
    expect(used.writtenBytes).toBe(HEADER_BYTES + 60_000);
  });

  test("what the receiver has not agreed to is dropped", () => {
    using net = loopback();
    net.offer(2);
    sendWith(net, NEEDS_CSUM, 0, frame(1));
    sendWith(net, 0, GSO_TCPV4, frame(2));
    sendWith(net, 0, 0, frame(3));
    expect(net.receive()).toEqual(frame(3));
  });
});

describe("config and options", () => {
  test("MAC, link, pairs and MTU are in the config space", () => {
    using net = loopback({ mtu: 9000 }, 3);
    expect([...net.device.readConfig()]).toEqual([...MAC, 1, 0, 3, 0, 0x28, 0x23]);
    net.device.setMtu(1400);
    expect([...net.device.readConfig()].slice(10)).toEqual([0x78, 0x05]);
    net.device.reset();
    expect([...net.device.readConfig()].slice(10)).toEqual([0x28, 0x23]);
    expect(net.device.maxQueues).toBe(7);
    expect(net.device.features & netFeature.MQ).not.toBe(0n);
  });

  test("a MAC address that nobody gave is locally administered and unicast, and not the next one's", () => {
    using loop = new EventLoop();
    const macs = [1, 2].map(() => new NetDevice(new LoopbackEnd(loop), loop).readConfig().subarray(0, 6));
    for (const mac of macs) expect(mac[0]! & 3).toBe(2);
    expect(macs[0]).not.toEqual(macs[1]!);
  });

  test.each([{ mtu: 67 }, { mtu: 65_536 }])("%p is refused", (options) => {
    using loop = new EventLoop();
    expect(() => new NetDevice(new LoopbackEnd(loop), loop, options)).toThrow(UsageError);
    expect(() => new NetDevice(new LoopbackEnd(loop, 128), loop)).toThrow(UsageError);
  });

  test("SEND_RARP is a broadcast from that address; a suspended device sends it when it runs", () => {
    using loop = new EventLoop();
    const [one, two] = LoopbackEnd.pair(loop);
    using a = new NetRig(() => one, { loop });
    using b = new NetRig(() => two, { loop });
    b.offer(2);
    const mac = Uint8Array.of(0x52, 0x54, 0, 0, 0, 9);
    a.suspend();
    a.device.sendRarp(mac);
    loop.runOnce(0);
    expect(b.rx().take()).toBeUndefined();
    a.resume();
    const rarp = b.receive();
    const announced = [...new Uint8Array(6).fill(0xff), ...mac, 0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    expect([...rarp]).toEqual([...announced, ...mac, 0, 0, 0, 0, ...mac, 0, 0, 0, 0, ...new Uint8Array(18)]);
  });
});

describe("rate limit", () => {
  test("frames beyond it wait for the next period, in each direction", () => {
    using net = loopback({ rateLimit: { bytes: 300, periodMs: 20 } });
    net.offer(8);
    for (let i = 0; i < 6; i++) net.send(frame(i, 100));
    let taken = 0;
    while (net.tx().take() !== undefined) taken++;
    // 112 bytes each: the third goes beyond the limit, the fourth has to wait.
    expect(taken).toBe(3);
    for (let i = 0; i < 6; i++) expect(net.receive()).toEqual(frame(i, 100));
  });

  test("nothing moves while nothing is left", () => {
    using net = loopback({ rateLimit: { bytes: 1, periodMs: LONG_MS } });
    net.offer(8);
    net.send(frame(1));
    net.send(frame(2));
    expect(net.receive()).toEqual(frame(1));
    net.settle();
    expect(net.rx().take()).toBeUndefined();
  });
});

test("more frames than are served in a turn go on in the next, and queues of a driver without MQ have the control queue third", () => {
  using net = loopback({ size: 512, acked: WITH_CONTROL });
  net.offer(400, 128);
  for (let i = 0; i < 250; i++) net.tx().add([{ out: new Uint8Array(HEADER_BYTES) }, { out: frame(i, 60) }]);
  net.tx().kick();
  for (let i = 0; i < 250; i++) expect(net.receive()).toEqual(frame(i, 60));
  expect(net.control(0, 0, Uint8Array.of(1))).toBe(0);
});
