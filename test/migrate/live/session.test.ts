import { expect, test } from "bun:test";
import { FrameType } from "../../../migrate/live/frame.ts";
import {
  decodeMessage,
  encodeMessage,
  type LiveMessage,
  liveMessage,
} from "../../../migrate/live/messages.ts";
import { ReceivedMachine } from "../../../migrate/live/received-machine.ts";
import type { Session } from "../../../migrate/live/session.ts";
import { encodeStatePiece } from "../../../migrate/live/state-frame.ts";
import { FormatError } from "../../../src/errors.ts";
import { MAX_LIVE_STATES, MAX_LIVE_WAITING_MESSAGES } from "../../../src/limits.ts";
import { TcpRelay } from "../../support/tcp-relay.ts";
import { LiveRig, LOCAL } from "./live-pair.ts";

const FRAMES = 300;

/** Frames that tell their place; the receiving side notes them. */
function content(stream: number, index: number): Uint8Array {
  const bytes = new Uint8Array(20_000 + index * 13);
  new DataView(bytes.buffer).setUint32(0, stream * 1_000_000 + index, true);
  return bytes;
}

test("messages and data arrive in order, and the acknowledgements go back", async () => {
  using rig = await LiveRig.start();
  const seen: number[][] = [[], [], []];
  rig.onSession = (session) => {
    session.onData = (frame) => {
      seen[frame.stream]!.push(
        new DataView(frame.payload.buffer, frame.payload.byteOffset).getUint32(0, true),
      );
      return undefined;
    };
  };
  using session = await rig.open();
  await session.say({ kind: "prepared" });
  for (let index = 0; index < FRAMES; index++) {
    for (const stream of [1, 2]) await session.send(stream, FrameType.memory, content(stream, index));
  }
  expect(await session.settled(20_000)).toBe(true);
  const numbers = Array.from({ length: FRAMES }, (_, index) => index);
  expect(seen[1]).toEqual(numbers.map((index) => 1_000_000 + index));
  expect(seen[2]).toEqual(numbers.map((index) => 2_000_000 + index));
  const receiver = rig.sessions[0]!;
  expect((await receiver.next()).kind).toBe("prepared");
  await receiver.say({ kind: "prepared" });
  expect((await session.expect("prepared")).kind).toBe("prepared");
});

test("a connection that breaks again and again is taken up where it was: nothing lost, nothing twice", async () => {
  using rig = await LiveRig.start();
  using relay = await TcpRelay.start({ host: LOCAL, port: rig.port });
  const seen: number[][] = [[], [], []];
  rig.onSession = (session) => {
    session.onData = async (frame) => {
      // Longer than a cut: frames are received and not yet applied when the connection ends.
      if (seen[frame.stream]!.length % 50 === 0) await Bun.sleep(20);
      seen[frame.stream]!.push(
        new DataView(frame.payload.buffer, frame.payload.byteOffset).getUint32(0, true),
      );
    };
  };
  using session = await rig.open({ address: { host: LOCAL, port: relay.port } });
  for (let index = 0; index < FRAMES; index++) {
    for (const stream of [1, 2]) await session.send(stream, FrameType.memory, content(stream, index));
    if (index % 60 === 30) {
      relay.cut();
      await Bun.sleep(30);
    }
  }
  expect(await session.settled(20_000)).toBe(true);
  const numbers = Array.from({ length: FRAMES }, (_, index) => index);
  for (const stream of [1, 2])
    expect(seen[stream]).toEqual(numbers.map((index) => stream * 1_000_000 + index));
  expect(session.reconnections).toBeGreaterThan(2);
});

test("a link that goes silent is noticed and replaced", async () => {
  using rig = await LiveRig.start({ silenceMs: 300 });
  using relay = await TcpRelay.start({ host: LOCAL, port: rig.port });
  using session = await rig.open({ address: { host: LOCAL, port: relay.port }, silenceMs: 300 });
  relay.isSilent = true;
  await session.say({ kind: "prepared" });
  await Bun.sleep(500);
  relay.isSilent = false;
  relay.cut();
  expect((await rig.sessions[0]!.next(AbortSignal.timeout(10_000))).kind).toBe("prepared");
});

test("a connection that stays away ends the session on both sides, and says so", async () => {
  using rig = await LiveRig.start();
  using relay = await TcpRelay.start({ host: LOCAL, port: rig.port });
  using session = await rig.open({ address: { host: LOCAL, port: relay.port }, retryMs: 200 });
  relay.isDown = true;
  relay.cut();
  const lost = /lost and not taken up again within 200 ms/;
  await expect(session.next()).rejects.toThrow(lost);
  await expect(rig.sessions[0]!.next()).rejects.toThrow(lost);
});

test("why one side gives up is told to the other", async () => {
  using rig = await LiveRig.start();
  using session = await rig.open();
  await rig.sessions[0]!.abandon(new Error("the disk is full"));
  await expect(session.next()).rejects.toThrow("the other side says: the disk is full");
});

test("a peer that is known cannot fill this side's memory: messages that nobody waits for, and states without end", async () => {
  using rig = await LiveRig.start();
  using session = await rig.open();
  for (let count = 0; count <= MAX_LIVE_WAITING_MESSAGES; count++) {
    await session.say({ kind: "prepared" }).catch(() => {});
  }
  await expect(session.next(AbortSignal.timeout(5_000))).rejects.toThrow("more messages came");
  const streams = { identity: { streams: 1 } } as unknown as Session;
  using received = new ReceivedMachine(streams, [], () => {
    throw new Error("no region");
  });
  const take = (deviceId: number) => {
    const payload = encodeStatePiece({ kind: "device", deviceId, bytes: new Uint8Array(1) });
    const checksum = new Uint8Array(8);
    received.take({ type: FrameType.state, flags: 0, stream: 0, sequence: 1, payload, checksum });
  };
  for (let id = 0; id < MAX_LIVE_STATES; id++) take(id);
  expect(() => take(MAX_LIVE_STATES)).toThrow(FormatError);
});

test("a memory map that names a region twice is refused: each gets a memfd", () => {
  const region = { id: 1, guestAddress: 0, sizeBytes: 4096, name: "ram" };
  const map: LiveMessage = { kind: "prepare", memoryMap: [region, region] };
  expect(() => decodeMessage(liveMessage, encodeMessage(map), "message")).toThrow("regions repeat");
});

test("who has said that it runs may close: nobody tries to connect again", async () => {
  using rig = await LiveRig.start();
  const lines: string[] = [];
  using session = await rig.open({ onConnection: (line) => lines.push(line) });
  const receiver = rig.sessions[0]!;
  await receiver.say({ kind: "running", resumeMs: 1, address: "machine:/m" });
  expect(await receiver.settled(5_000)).toBe(true);
  receiver.finish();
  await Bun.sleep(300);
  expect(lines).toEqual([]);
  expect((await session.expect("running")).address).toBe("machine:/m");
});
