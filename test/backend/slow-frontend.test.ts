import { describe, expect, test } from "bun:test";
import { NativeBuffer, setBufferSizes } from "../../src/sys/mod.ts";
import { encodeHeader, HEADER_BYTES, headerFlag, payloads } from "../../src/wire/mod.ts";
import { BackendRig } from "../support/backend-rig.ts";

const SET_VRING_ENABLE = 18;
const CONFIG_CHANGE = 2;

/** SET_VRING_ENABLE of a ring, as bytes. */
function disable(index: number): NativeBuffer {
  const payload = payloads.vringState.encode({ index, num: 0 });
  const message = new NativeBuffer(HEADER_BYTES + payload.length);
  encodeHeader(message.view, SET_VRING_ENABLE, headerFlag.VERSION, payload.length);
  message.bytes.set(payload, HEADER_BYTES);
  return message;
}

describe("a front-end that stops inside a message", () => {
  test("does not hold up the rings: they are served between any two bytes", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start();
    const message = disable(0);
    const { socket } = rig.channel.connection;
    for (let at = 0; at < message.sizeBytes; at++) {
      expect(ring.echo(`before byte ${at}`)).toBe(`before byte ${at}`);
      socket.send(message, at, 1);
      rig.settle(2);
    }
    expect(ring.echo("disabled now")).toBe("");
    expect(ring.stop()).toBe(message.sizeBytes);
  });

  test("ends its session when the message's time is over, though nothing happens on the socket", () => {
    using rig = new BackendRig({ messageTimeoutMs: 20 });
    const ring = rig.negotiate().shareMemory().ring().start();
    // A whole message in two parts before it: its timer must not be the end of the next one.
    const message = disable(1);
    const { socket } = rig.channel.connection;
    socket.send(message, 0, 15);
    rig.settle(2);
    socket.send(message, 15, message.sizeBytes - 15);
    rig.settle(2);
    expect(ring.echo("on")).toBe("on");
    socket.send(message, 0, 15);
    for (let turns = 0; turns < 1_000 && rig.end === undefined; turns++) rig.loop.runOnce(5);
    expect(rig.end).toMatchObject({ kind: "failed", error: { code: "PEER", reconnect: true } });
    expect(rig.device.queues.size).toBe(0);
  });
});

describe("a front-end that does not read its back-end's requests (SIGSTOP)", () => {
  function stopped() {
    const rig = new BackendRig();
    rig.negotiate(["REPLY_ACK", "CONFIG", "BACKEND_REQ"]).shareMemory();
    const [ours, theirs] = rig.pair();
    setBufferSizes(theirs, 4096);
    rig.client.setBackendReqFd(theirs.fd);
    theirs[Symbol.dispose]();
    const ring = rig.ring().start();
    const client = rig.device.frontend!;
    /** Requests that came, until there are no more. */
    const read = () => {
      const requests: number[] = [];
      for (let idle = 0; idle < 4; ) {
        const frame = ours.receive(0);
        if (typeof frame !== "string") requests.push(frame.request);
        idle = typeof frame === "string" ? idle + 1 : 0;
        rig.settle(1);
      }
      return requests;
    };
    return { rig, ring, client, read, ours };
  }

  test("holds up nothing: config changes are told once it reads, one for all that did not fit", () => {
    const { rig, ring, client, read } = stopped();
    using _rig = rig;
    for (let i = 0; i < 10_000; i++) client.configChange();
    expect(ring.echo("served")).toBe("served");
    const first = read();
    expect(first.length).toBeLessThan(1_000);
    expect(new Set(first)).toEqual(new Set([CONFIG_CHANGE]));
    client.configChange();
    expect(read()).toEqual([CONFIG_CHANGE]);
    expect(rig.log.lines.filter(({ level }) => level !== "debug")).toEqual([]);
  });

  test("a change that still waits when the device is suspended is told at the wake, not before", () => {
    const { rig, ring, client, read } = stopped();
    using _rig = rig;
    let inSocket = 0;
    while (client.channel.connection.trySend(CONFIG_CHANGE, headerFlag.VERSION)) inSocket++;
    client.configChange();
    ring.stop();
    expect(read().length).toBe(inSocket);
    ring.start(0);
    expect(read()).toEqual([CONFIG_CHANGE]);
  });

  test("that then dies loses what waits for it: the log says so, the device goes on", () => {
    const { rig, ring, client, ours } = stopped();
    using _rig = rig;
    for (let i = 0; i < 10_000; i++) client.configChange();
    ours[Symbol.dispose]();
    rig.settle();
    client.configChange();
    const warnings = rig.log.lines.filter(({ level }) => level === "warn");
    expect(warnings.map(({ message }) => message)).toEqual([expect.stringContaining("could not be sent")]);
    expect(ring.echo("on")).toBe("on");
  });
});
