import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NetDevice, netFeature, StreamEnd } from "../../../devices/net/mod.ts";
import { MAX_NET_FRAME_BYTES } from "../../../src/limits.ts";
import { connectUnix, setBufferSizes, UnixListener, UnixSocket } from "../../../src/sys/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import { frame, NetRig } from "./net-rig.ts";
import { Peer, wire } from "./stream-peer.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-stream-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function setUp(options: { readonly smallBuffers?: boolean } = {}) {
  const stack = new DisposableStack();
  const [ours, theirs] = UnixSocket.pair();
  if (options.smallBuffers) for (const socket of [ours, theirs]) setBufferSizes(socket, 4096);
  const peer = stack.use(new Peer(theirs));
  const net = stack.use(
    new NetRig((loop, logger) => new StreamEnd({ connected: ours.fd }, loop, logger), { size: 256 }),
  );
  return { peer, net, connection: ours.fd, [Symbol.dispose]: () => stack.dispose() };
}

describe("frames", () => {
  test("go out and come in with their length before them, and no header", () => {
    using stream = setUp();
    const { net, peer } = stream;
    net.offer(8);
    net.send(frame(1, 60));
    net.send(frame(2, 1514));
    expect(net.await(() => peer.read())).toEqual(frame(1, 60));
    expect(net.await(() => peer.read())).toEqual(frame(2, 1514));
    peer.write(wire(frame(3, 64), frame(4, 65), frame(5, 5000)));
    for (const [seed, size] of [
      [3, 64],
      [4, 65],
      [5, 5000],
    ] as const)
      expect(net.receive()).toEqual(frame(seed, size));
  });

  test("that come in piece by piece are put together", () => {
    using stream = setUp();
    stream.net.offer(8);
    const bytes = wire(frame(1, 300), frame(2, 60));
    for (let i = 0; i < bytes.length; i += 3) {
      stream.peer.write(bytes.slice(i, i + 3));
      stream.net.loop.runOnce(0);
    }
    expect(stream.net.receive()).toEqual(frame(1, 300));
    expect(stream.net.receive()).toEqual(frame(2, 60));
  });

  test("wait with the peer while it does not read, in part if need be, and none is lost or repeated", () => {
    using stream = setUp({ smallBuffers: true });
    const { net, peer } = stream;
    for (let i = 0; i < 100; i++) net.send(frame(i, 3000 + i));
    net.settle();
    let taken = 0;
    while (net.tx().take() !== undefined) taken++;
    expect(taken).toBeLessThan(50);
    for (let i = 0; i < 100; i++) expect(net.await(() => peer.read())).toEqual(frame(i, 3000 + i));
  });

  test("are left with the peer while the driver has no buffers", () => {
    using stream = setUp();
    const { net, peer } = stream;
    for (let i = 0; i < 20; i++) peer.write(wire(frame(i, 1000)));
    net.settle();
    for (let i = 0; i < 20; i++) {
      net.offer(1);
      expect(net.receive()).toEqual(frame(i, 1000));
    }
  });

  test.each([0, 13, MAX_NET_FRAME_BYTES])("a length of %p is no frame: the connection ends", (length) => {
    using stream = setUp();
    stream.net.offer(1);
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setUint32(0, length);
    stream.peer.write(bytes);
    stream.net.await(() => (stream.net.device.readConfig()[6] === 0 ? true : undefined));
    expect(stream.net.rx().take()).toBeUndefined();
  });
});

describe("the connection", () => {
  test("is taken from one peer after the other, with the link down between them", () => {
    const path = join(dir, "s");
    using net = new NetRig((loop, logger) => new StreamEnd({ listen: path }, loop, logger));
    net.offer(8);
    expect(net.device.readConfig()[6]).toBe(0);
    net.send(frame(9));
    for (const seed of [1, 2]) {
      using peer = new Peer(connectUnix(path));
      net.await(() => (net.device.readConfig()[6] === 1 ? true : undefined));
      net.send(frame(seed));
      expect(net.await(() => peer.read())).toEqual(frame(seed));
      // The beginning of a frame goes with its connection.
      peer.write(wire(frame(seed + 10), frame(0)).slice(0, 150));
      expect(net.receive()).toEqual(frame(seed + 10));
      peer.socket.shutdown();
      net.await(() => (net.device.readConfig()[6] === 0 ? true : undefined));
    }
  });

  test("is dialled again when the peer comes later, and when it comes back", () => {
    const path = join(dir, "s");
    using net = new NetRig((loop, logger) => new StreamEnd({ connect: path }, loop, logger));
    net.offer(8);
    for (const seed of [1, 2]) {
      using listener = UnixListener.listen(path);
      net.await(() => (net.device.readConfig()[6] === 1 ? true : undefined));
      using peer = new Peer(listener.accept());
      peer.write(wire(frame(seed)));
      expect(net.receive()).toEqual(frame(seed));
      peer.socket.shutdown();
      net.await(() => (net.device.readConfig()[6] === 0 ? true : undefined));
    }
  });
});

describe("state", () => {
  const MRG = netFeature.MRG_RXBUF;

  test("frames that no guest has had, and what is under way in both directions, go along; on the same connection nothing is lost or repeated", () => {
    using stream = setUp({ smallBuffers: true });
    const { net, peer } = stream;
    for (let i = 0; i < 20; i++) net.send(frame(i, 3000));
    const incoming = wire(frame(100, 200), frame(101, 201), frame(102, 202));
    peer.write(incoming.slice(0, 450));
    net.settle();
    net.offer(1);
    expect(net.receive()).toEqual(frame(100, 200));
    net.suspend();
    peer.write(incoming.slice(450));
    const state = saveDevice(net.device);
    // The next process has the same connection.
    using end = new StreamEnd({ connected: stream.connection.duplicate() }, net.loop, net.logger);
    const next = new NetDevice(end, net.loop, { logger: net.logger });
    loadDevice(next, state);
    next.ackFeatures(MRG);
    net.moveTo(next);
    for (let i = 0; i < 20; i++) expect(net.await(() => peer.read())).toEqual(frame(i, 3000));
    net.offer(4);
    expect(net.receive()).toEqual(frame(101, 201));
    expect(net.receive()).toEqual(frame(102, 202));
    net.suspend();
    next.enterSuspendedState();
  });

  test("on a new connection the frame that was going out begins anew, and the half that came in is dropped", () => {
    using stream = setUp({ smallBuffers: true });
    const { net, peer } = stream;
    for (let i = 0; i < 20; i++) net.send(frame(i, 3000));
    peer.write(wire(frame(100, 200), frame(101, 201)).slice(0, 300));
    net.settle();
    net.offer(1);
    expect(net.receive()).toEqual(frame(100, 200));
    let sent = 0;
    while (net.tx().take() !== undefined) sent++;
    net.suspend();
    const state = saveDevice(net.device);
    const path = join(dir, "s");
    using listener = UnixListener.listen(path);
    using end = new StreamEnd({ connect: path }, net.loop, net.logger);
    const next = new NetDevice(end, net.loop, { logger: net.logger });
    loadDevice(next, state);
    next.ackFeatures(MRG);
    net.moveTo(next);
    using newPeer = new Peer(listener.accept());
    // The last frame that the driver was told of as sent is the one that was cut off.
    for (let i = sent - 1; i < 20; i++) expect(net.await(() => newPeer.read())).toEqual(frame(i, 3000));
    net.offer(4);
    newPeer.write(wire(frame(5, 100)));
    expect(net.receive()).toEqual(frame(5, 100));
    net.suspend();
    next.enterSuspendedState();
  });
});
