import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { netFeature, TapEnd } from "../../../devices/net/mod.ts";
import { SyscallError, UsageError } from "../../../src/errors.ts";
import { check, EventLoop, type Fd, libc, NativeBuffer, O, openFile, Tap } from "../../../src/sys/mod.ts";
import { NetNamespace } from "../../support/net-namespace.ts";
import { recordingLogger } from "../../support/recording-logger.ts";
import { arpReplyOf, arpRequest, echoReplyOf, echoRequest, udpFrame } from "./frames.ts";
import { MAC, NetRig, type RigOptions, WITH_CONTROL } from "./net-rig.ts";

const HOST = [10, 8, 0, 1] as const;
const GUEST = [10, 8, 0, 2] as const;

const possible = NetNamespace.isPossible;
let namespace: NetNamespace;
let name: string;
beforeEach(() => {
  if (!possible) return;
  namespace = new NetNamespace();
  name = NetNamespace.interfaceName();
});
afterEach(() => {
  if (possible) namespace[Symbol.dispose]();
});

/** A device on a tap of the namespace, whose kernel answers. The guest's address is known there. */
function setUp(options: RigOptions & { readonly pairs?: number; readonly mtu?: number } = {}): NetRig {
  const { pairs = 1 } = options;
  const net = new NetRig((loop, logger) => new TapEnd(Tap.open(name, pairs), loop, logger), options);
  namespace.adopt(name, `${HOST.join(".")}/24`);
  namespace.ip("link", "set", name, "mtu", "65000");
  const mac = Array.from(MAC, (byte) => byte.toString(16).padStart(2, "0")).join(":");
  namespace.ip("neighbor", "add", GUEST.join("."), "lladdr", mac, "dev", name, "nud", "permanent");
  return net;
}

const hostMac = (): Uint8Array => {
  const [, text = ""] = /link\/ether ([0-9a-f:]+)/.exec(namespace.ip("link", "show", name)) ?? [];
  return Uint8Array.from(text.split(":"), (part) => Number.parseInt(part, 16));
};

const echo = (sequence: number, sizeBytes: number) =>
  echoRequest({ from: MAC, to: hostMac(), source: GUEST, target: HOST, sequence, sizeBytes });

/** A tap as other programs make them: without IFF_VNET_HDR. */
function plainTap(interfaceName: string): Fd {
  const fd = openFile("/dev/net/tun", O.RDWR);
  const request = new NativeBuffer(40);
  new TextEncoder().encodeInto(interfaceName, request.bytes);
  // TUNSETIFF with IFF_TAP | IFF_NO_PI (include/uapi/linux/if_tun.h).
  request.view.setUint16(16, 0x1002, true);
  check(libc.ioctl(fd.number, 0x4004_54ca, request.address), "ioctl(TUNSETIFF)", interfaceName);
  return fd;
}

/** Frames of the kernel's own, e.g. of IPv6, are skipped. */
function receiveEcho(net: NetRig, pair = 0) {
  for (;;) {
    const reply = echoReplyOf(net.receive(pair));
    if (reply !== undefined) return reply;
  }
}

describe.skipIf(!possible)("the network of a namespace", () => {
  test.each([
    { packed: false, acked: netFeature.MRG_RXBUF, room: 2048 },
    { packed: true, acked: netFeature.MRG_RXBUF, room: 1536 },
    { packed: false, acked: 0n, room: 65_600 },
  ])("answers ARP and pings of all sizes: %p", ({ packed, acked, room }) => {
    using net = setUp({ packed, acked, size: 256 });
    net.offer(60, room);
    net.send(arpRequest({ from: MAC, source: GUEST, target: HOST }));
    let answer: Uint8Array | undefined;
    while (answer === undefined) answer = arpReplyOf(net.receive());
    expect(answer).toEqual(hostMac());
    for (const [sequence, sizeBytes] of [0, 1, 56, 1400, 5000, 40_000].entries()) {
      net.send(echo(sequence, sizeBytes));
      expect(receiveEcho(net)).toEqual({ sequence, sizeBytes, intact: true });
    }
    expect(net.logger.lines).toEqual([]);
  });

  test("is not read while the driver has no buffers, and a frame that finds too few of them waits", () => {
    using net = setUp();
    for (let i = 0; i < 5; i++) net.send(echo(i, 8000));
    net.settle();
    net.offer(2);
    net.settle();
    for (let i = 0; i < 5; i++) {
      net.offer(5);
      expect(receiveEcho(net)).toEqual({ sequence: i, sizeBytes: 8000, intact: true });
    }
  });

  test("is not touched while the device is suspended, and a frame that was read goes along in the state", () => {
    using net = setUp();
    net.offer(1);
    net.send(echo(1, 8000));
    net.settle();
    net.suspend();
    // The buffer that was too small for it went back empty.
    expect(net.rx().take()?.writtenBytes).toBe(0);
    net.resume();
    net.offer(10);
    expect(receiveEcho(net)).toEqual({ sequence: 1, sizeBytes: 8000, intact: true });
  });

  test("does not keep the loop busy while its ring is disabled, and is read when it is enabled", () => {
    using net = setUp();
    net.offer(4);
    // What a disabled ring does: it does not react.
    const { queue } = net.rx();
    const { wake } = queue;
    let wakes = 0;
    queue.wake = () => void wakes++;
    net.send(echo(1, 100));
    net.settle();
    expect(wakes).toBe(1);
    queue.wake = wake;
    net.rx().kick();
    expect(receiveEcho(net)).toEqual({ sequence: 1, sizeBytes: 100, intact: true });
  });

  test("gets frames through a filter, too", () => {
    using net = setUp({ acked: WITH_CONTROL });
    expect(net.control(0, 0, Uint8Array.of(0))).toBe(0);
    net.offer(20);
    net.send(echo(1, 3000));
    expect(receiveEcho(net)).toEqual({ sequence: 1, sizeBytes: 3000, intact: true });
    expect(net.control(1, 1, Uint8Array.of(0x52, 0x54, 0, 0, 0, 0x55))).toBe(0);
    net.send(echo(2, 100));
    net.settle();
    let seen = 0;
    for (let used = net.rx().take(); used !== undefined; used = net.rx().take()) {
      if (echoReplyOf(new Uint8Array(used.written.subarray(12))) !== undefined) seen++;
    }
    expect(seen).toBe(0);
  });

  test("gives frames with checksums to be completed to a guest that takes them, and only to it", () => {
    const { GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, MRG_RXBUF } = netFeature;
    using net = setUp({ acked: MRG_RXBUF | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 });
    expect(net.device.features & (netFeature.CSUM | GUEST_CSUM | GUEST_TSO4 | netFeature.HOST_TSO6)).toBe(
      netFeature.CSUM | GUEST_CSUM | GUEST_TSO4 | netFeature.HOST_TSO6,
    );
    net.offer(20);
    net.send(echo(1, 100));
    expect(receiveEcho(net).intact).toBe(true);
  });

  test("segments what a guest sends as one, and gives a guest that takes it as one what others sent so (USO)", async () => {
    const { CSUM, GUEST_CSUM, GUEST_USO4, GUEST_USO6, HOST_USO, MRG_RXBUF } = netFeature;
    using net = setUp({ acked: MRG_RXBUF | CSUM | GUEST_CSUM | GUEST_USO4 | GUEST_USO6 | HOST_USO });
    if ((net.device.features & HOST_USO) === 0n) {
      console.error("skipped, a tap's UDP segmentation needs Linux 6.2");
      return;
    }
    const [count, size, port] = [8, 1000, 5005];
    const script = join(import.meta.dir, "../../support/udp-segments.ts");
    const addresses = [HOST.join("."), port, GUEST.join(".")].map(String);
    const child = namespace.start([process.execPath, script, ...addresses, `${count}`, `${size}`]);
    const data = Uint8Array.from({ length: count * size }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
    const listens = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, "0")} `);
    while (!listens.test(readFileSync(`/proc/${child.pid}/net/udp`, "latin1"))) await Bun.sleep(5);
    net.offer(20);
    const datagram = udpFrame({ from: MAC, to: hostMac(), source: GUEST, target: HOST, port, data });
    const header = new DataView(new ArrayBuffer(12));
    for (const [offset, value] of [
      [2, 42],
      [4, size],
      [6, 34],
      [8, 6],
    ] as const)
      header.setUint16(offset, value, true);
    // NEEDS_CSUM, GSO_UDP_L4 (virtio 1.3, 5.1.6).
    header.setUint8(0, 1);
    header.setUint8(1, 5);
    net.tx().add([{ out: new Uint8Array(header.buffer) }, { out: datagram }]);
    net.tx().kick();
    const first = net.await(() => net.rx().take());
    expect([first.written[1], first.written[4]! | (first.written[5]! << 8)]).toEqual([5, size]);
    const buffers = first.written[10]!;
    const parts = [first, ...Array.from({ length: buffers - 1 }, () => net.rx().take()!)];
    const back = Buffer.concat(parts.map(({ written, writtenBytes }) => written.subarray(0, writtenBytes)));
    expect(Buffer.compare(back.subarray(12 + 42), data)).toBe(0);
    expect(await child.exited).toBe(0);
  });

  test("a frame that it refuses is dropped and told of: the interface is down", () => {
    using net = setUp();
    namespace.ip("link", "set", name, "down");
    net.send(echo(1, 100));
    expect(net.tx().take()?.writtenBytes).toBe(0);
    expect(net.logger.lines.map(({ message }) => message)).toEqual([expect.stringContaining("EIO")]);
  });

  test("a tap that someone deletes takes the link down, once", () => {
    using net = setUp();
    net.offer(4);
    namespace.ip("link", "delete", name);
    net.await(() => (net.device.readConfig()[6] === 0 ? true : undefined));
    net.settle();
    expect(net.logger.lines.filter(({ level }) => level === "error").length).toBeGreaterThan(0);
  });
});

describe.skipIf(!possible)("several queues", () => {
  test("answers come through the pairs that the driver uses", () => {
    using net = setUp({ pairs: 2, acked: WITH_CONTROL | netFeature.MQ });
    net.offer(20, 2048, 0);
    net.offer(20, 2048, 1);
    for (let i = 0; i < 8; i++) {
      net.send(echo(i, 100), i % 2);
      expect(receiveEcho(net)).toEqual({ sequence: i, sizeBytes: 100, intact: true });
    }
    expect(net.rx(1).take()).toBeUndefined();
    expect(net.control(4, 0, Uint8Array.of(2, 0))).toBe(0);
    // The kernel remembers by which queue a flow came in, and answers through it.
    net.send(echo(9, 100), 1);
    expect(receiveEcho(net, 1)).toEqual({ sequence: 9, sizeBytes: 100, intact: true });
    expect(net.control(4, 0, Uint8Array.of(1, 0))).toBe(0);
    net.send(echo(10, 100), 0);
    expect(receiveEcho(net)).toEqual({ sequence: 10, sizeBytes: 100, intact: true });
  });
});

describe.skipIf(!possible)("taps", () => {
  test("can be given", () => {
    using loop = new EventLoop();
    const [tap] = Tap.open(name) as [Tap];
    const given = Tap.fromFd(tap.fd.duplicate(`given ${name}`));
    tap[Symbol.dispose]();
    expect([given.name, given.hasVnetHeader, given.isMultiQueue]).toEqual([name, true, false]);
    using end = new TapEnd([given], loop, recordingLogger());
    expect(end.features & netFeature.CSUM).toBe(netFeature.CSUM);
  });

  test("without a virtio header have no offloads, and the header is ours to add and to strip", () => {
    using net = new NetRig((loop, logger) => new TapEnd([Tap.fromFd(plainTap(name))], loop, logger), {
      size: 256,
    });
    namespace.adopt(name, `${HOST.join(".")}/24`);
    namespace.ip("link", "set", name, "mtu", "65000");
    expect(net.device.features & (netFeature.CSUM | netFeature.GUEST_CSUM | netFeature.HOST_TSO4)).toBe(0n);
    net.offer(10, 10_000);
    net.offer(60);
    net.send(arpRequest({ from: MAC, source: GUEST, target: HOST }));
    let answer: Uint8Array | undefined;
    while (answer === undefined) answer = arpReplyOf(net.receive());
    for (const [sequence, sizeBytes] of [100, 9000, 9900, 9960, 40_000].entries()) {
      net.send(echo(sequence, sizeBytes));
      expect(receiveEcho(net)).toEqual({ sequence, sizeBytes, intact: true });
    }
  });

  test("one that is taken, an impossible name, and what is no tap are refused", () => {
    using _tap = Tap.open(name)[0]!;
    expect(() => Tap.open(name)).toThrow(SyscallError);
    for (const bad of ["", "a/b", "a b", "x".repeat(16)]) expect(() => Tap.open(bad)).toThrow(UsageError);
    expect(() => Tap.fromFd(openFile("/dev/null", O.RDWR))).toThrow(UsageError);
  });

  test("a name may leave the number open", () => {
    using tap = Tap.open("vhutap%d")[0]!;
    expect(tap.name).toMatch(/^vhutap\d+$/);
  });
});
