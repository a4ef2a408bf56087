import { describe, expect, test } from "bun:test";
import { BackendSession, type SessionEnd } from "../../src/backend/mod.ts";
import { Interrupt, type QueueSetup, type SharedRegion, VhostUserFrontend } from "../../src/frontend/mod.ts";
import {
  createEventFd,
  createMemfd,
  disposeAll,
  drainEvent,
  EventLoop,
  type Fd,
  UnixSocket,
} from "../../src/sys/mod.ts";
import { dialects, type ProtocolFeature, tableFor, virtioFeature } from "../../src/wire/mod.ts";
import { runBeside } from "../support/loop.ts";
import { TestDevice } from "../support/test-device.ts";

const MEMORY_BYTES = 1 << 20;
const QUEUE_SIZE = 64;

class Rig implements Disposable {
  readonly loop = new EventLoop();
  readonly device = new TestDevice(16, 0xffn);
  readonly interrupt = new Interrupt();
  readonly kicks: Fd[] = [createEventFd("kick 0"), createEventFd("kick 1")];
  readonly memory: SharedRegion[];
  readonly frontend: VhostUserFrontend;
  readonly messages: string[] = [];
  readonly session: BackendSession;
  end: SessionEnd | undefined;

  constructor(features: readonly ProtocolFeature[]) {
    const [ours, theirs] = UnixSocket.pair();
    const table = recordingTable(this.messages);
    this.session = new BackendSession(theirs, this.device, this.loop, (end) => (this.end = end), { table });
    const fd = createMemfd("guest", MEMORY_BYTES);
    this.memory = [
      { layout: { guestAddress: 0, sizeBytes: MEMORY_BYTES, userAddress: 0x10000000, mmapOffset: 0 }, fd },
    ];
    this.frontend = new VhostUserFrontend(ours, this.loop, {
      type: { name: "test", id: 63, minQueues: 16 },
      baseFeatures: virtioFeature.VERSION_1,
      allowedProtocolFeatures: features,
      channel: { whileWaiting: () => void this.loop.runOnce(0) },
    });
  }

  queues(bases: ReadonlyMap<number, number> = new Map()): QueueSetup[] {
    return this.kicks.map((kick, index) => ({
      index,
      size: QUEUE_SIZE,
      descriptor: index * 0x4000,
      available: index * 0x4000 + 0x1000,
      used: index * 0x4000 + 0x2000,
      base: bases.get(index) ?? 0,
      vector: index,
      kick,
    }));
  }

  /** Lets the back-end work off what was sent without asking for an answer. */
  settle(): void {
    for (let i = 0; i < 64; i++) this.loop.runOnce(0);
  }

  takeMessages(): string[] {
    this.settle();
    return this.messages.splice(0);
  }

  [Symbol.dispose](): void {
    this.frontend[Symbol.dispose]();
    this.loop.runOnce(0);
    this.session[Symbol.dispose]();
    this.interrupt[Symbol.dispose]();
    disposeAll([...this.kicks, ...this.memory.map((region) => region.fd)]);
    this.loop[Symbol.dispose]();
  }
}

/** The spec's table, with every message that the back-end looks up written down. */
function recordingTable(messages: string[]) {
  const table = tableFor(dialects.spec);
  const frontend = new Map(table.frontend);
  frontend.get = (number) => {
    const message = table.frontend.get(number);
    messages.push(message?.name ?? `message ${number}`);
    return message;
  };
  return { ...table, frontend };
}

const PER_RING_START = [
  "SET_VRING_NUM",
  "SET_VRING_ADDR",
  "SET_VRING_BASE",
  "SET_VRING_CALL",
  "SET_VRING_KICK",
  "SET_VRING_ENABLE",
];
const ACTIVATE = ["SET_MEM_TABLE", ...PER_RING_START, ...PER_RING_START];
const STOP = ["SET_VRING_ENABLE", "GET_VRING_BASE", "SET_VRING_ENABLE", "GET_VRING_BASE"];

function configChangeArrives(rig: Rig): void {
  rig.device.frontend!.configChange();
  rig.settle();
  expect(drainEvent(rig.interrupt.configChange)).toBe(true);
}

describe.each([false, true])("lifecycle over a pair, back-end request channel: %p", (withRequests) => {
  const features: ProtocolFeature[] = [
    "CONFIG",
    "DEVICE_STATE",
    ...(withRequests ? (["BACKEND_REQ"] as const) : []),
  ];

  test("activate, reset, activate, sleep, snapshot, restore, wake, shutdown, in the spec's order", async () => {
    using rig = new Rig(features);
    using _beside = runBeside(rig.loop);
    expect(rig.frontend.queueMaxSizes.length).toBe(16);
    expect(rig.frontend.queueMaxSizes[0]).toBe(32768);
    const config = new BigUint64Array(rig.frontend.readConfig(0, 16).buffer);
    expect([...config]).toEqual([1n, 2n]);
    expect(rig.takeMessages()).toEqual([
      "SET_OWNER",
      "GET_FEATURES",
      "SET_FEATURES",
      "GET_PROTOCOL_FEATURES",
      "SET_PROTOCOL_FEATURES",
      ...(withRequests ? ["SET_BACKEND_REQ_FD"] : []),
      "GET_CONFIG",
    ]);
    expect(rig.session.handler.session.acked).toBe(virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1);

    rig.frontend.activate(rig.memory, rig.interrupt, rig.queues());
    expect(rig.takeMessages()).toEqual(ACTIVATE);
    expect(rig.device.queues.size).toBe(2);

    rig.frontend.reset();
    expect(rig.takeMessages()).toEqual(STOP);
    expect(rig.device.calls.at(-1)).toBe("suspend");

    rig.frontend.activate(rig.memory, rig.interrupt, rig.queues());
    expect(rig.takeMessages()).toEqual(ACTIVATE);
    if (withRequests) configChangeArrives(rig);

    const bases = rig.frontend.sleep();
    expect([...bases]).toEqual([
      [0, 0],
      [1, 0],
    ]);
    expect(rig.takeMessages()).toEqual(STOP);

    rig.device.counter = 42;
    const pieces: Uint8Array[] = [];
    await rig.frontend.saveState((bytes) => void pieces.push(bytes.slice()));
    rig.device.counter = 0;
    await rig.frontend.loadState(pieces);
    expect(rig.device.counter).toBe(42);
    expect(rig.takeMessages()).toEqual([
      "SET_DEVICE_STATE_FD",
      "CHECK_DEVICE_STATE",
      "SET_DEVICE_STATE_FD",
      "CHECK_DEVICE_STATE",
    ]);

    rig.frontend.wake(rig.memory, rig.interrupt, rig.queues(bases));
    expect(rig.takeMessages()).toEqual(ACTIVATE);
    if (withRequests) configChangeArrives(rig);

    rig.frontend[Symbol.dispose]();
    for (let i = 0; i < 10 && rig.end === undefined; i++) rig.loop.runOnce(50);
    expect(rig.end).toEqual({ kind: "disconnected" });
    expect(rig.device.calls.at(-1)).toBe("suspend");
  });
});

test("a config change while suspended is kept back until the device wakes", () => {
  using rig = new Rig(["CONFIG", "BACKEND_REQ"]);
  rig.settle();
  rig.device.frontend!.configChange();
  rig.settle();
  expect(drainEvent(rig.interrupt.configChange)).toBe(false);
  rig.frontend.activate(rig.memory, rig.interrupt, rig.queues());
  rig.settle();
  expect(drainEvent(rig.interrupt.configChange)).toBe(true);
});
