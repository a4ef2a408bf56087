import { expect, test } from "bun:test";
import { FrameType } from "../../../migrate/live/frame.ts";
import type { LiveMessage } from "../../../migrate/live/messages.ts";
import type { Session } from "../../../migrate/live/session.ts";
import { encodeStatePiece } from "../../../migrate/live/state-frame.ts";
import { FormatError, PeerError, VhuError } from "../../../src/errors.ts";
import { MAX_LIVE_STATES, MAX_MEM_SLOTS } from "../../../src/limits.ts";
import { HostileRig, offer, REGION, WORDS } from "./hostile-rig.ts";

const STEPS = ["offer", "prepare", "manifest"] as const;

/** Until the receiver has said why, or has closed. */
async function ended(session: Session): Promise<void> {
  await session.next(AbortSignal.timeout(10_000)).catch(() => {});
}

test.each(STEPS)("a sender that is there and never says its %s is given up, and hears why", async (step) => {
  await using hostile = await HostileRig.start();
  using session = await hostile.openUpTo(step);
  await expect(session.next(AbortSignal.timeout(10_000))).rejects.toThrow("does not get on");
  expect(await hostile.failure()).toBeInstanceOf(PeerError);
  expect(await hostile.leftovers()).toEqual([]);
});

test("bytes without a meaning keep nobody waiting", async () => {
  await using hostile = await HostileRig.start();
  using session = await hostile.open();
  const timer = setInterval(
    () => void session.send(0, FrameType.padding, new Uint8Array(8)).catch(() => {}),
    20,
  );
  await expect(session.next(AbortSignal.timeout(10_000))).rejects.toThrow("does not get on");
  clearInterval(timer);
});

test("the words of a migration have one order: any other is refused in every phase, and nothing is left", async () => {
  for (const step of STEPS) {
    for (const words of WORDS.filter(({ kind }) => kind !== step)) {
      await using hostile = await HostileRig.start();
      using session = await hostile.openUpTo(step);
      await session.say(words).catch(() => {});
      await ended(session);
      expect(`${(await hostile.failure()).message}`).toContain(
        `"${words.kind}" came where "${step}" was due`,
      );
      expect(await hostile.leftovers()).toEqual([]);
    }
  }
}, 60_000);

test.each<[string, LiveMessage[], string]>([
  [
    "another size than the machine's",
    [{ kind: "prepare", memoryMap: [{ ...REGION, sizeBytes: 2 ** 43 }] }],
    "wants",
  ],
  [
    "more regions than there may be",
    [
      {
        kind: "prepare",
        memoryMap: Array.from({ length: MAX_MEM_SLOTS + 1 }, (_, id) => ({ ...REGION, id, sizeBytes: 4096 })),
      },
    ],
    "memoryMap",
  ],
  ["no memory", [{ kind: "prepare", memoryMap: [] }], "wants 0 bytes"],
])("memory of %s is refused before any is made", async (_what, words, message) => {
  await using hostile = await HostileRig.start();
  using session = await hostile.openUpTo("prepare");
  for (const each of words) await session.say(each).catch(() => {});
  await ended(session);
  expect((await hostile.failure()).message).toContain(message);
  expect(hostile.log.list()).toEqual([]);
});

test("data that nobody asked for, in the wrong stream, or of no sense ends the migration", async () => {
  const piece = encodeStatePiece({ kind: "device", deviceId: 1, bytes: new Uint8Array(8) });
  const cases: [(typeof STEPS)[number], (session: Session) => Promise<void>][] = [
    ["offer", (session) => session.send(1, FrameType.memory, new Uint8Array(64))],
    ["prepare", (session) => session.send(0, FrameType.state, piece)],
    ["manifest", (session) => session.send(2, FrameType.memory, new Uint8Array(64))],
    ["manifest", (session) => session.send(1, FrameType.memory, new Uint8Array(0))],
    ["manifest", (session) => session.send(0, FrameType.state, new Uint8Array(3))],
  ];
  for (const [step, act] of cases) {
    await using hostile = await HostileRig.start();
    using session = await hostile.openUpTo(step);
    await act(session).catch(() => {});
    await ended(session);
    expect(await hostile.failure()).toBeInstanceOf(VhuError);
    expect(await hostile.leftovers()).toEqual([]);
  }
}, 30_000);

test("states without end fill nothing", async () => {
  await using hostile = await HostileRig.start();
  using session = await hostile.openUpTo("manifest");
  for (let deviceId = 0; deviceId <= MAX_LIVE_STATES && session.failure === undefined; deviceId += 1) {
    const piece = encodeStatePiece({ kind: "device", deviceId, bytes: new Uint8Array(8) });
    await session.send(0, FrameType.state, piece).catch(() => {});
  }
  await ended(session);
  expect((await hostile.failure()).message).toContain("too many states");
});

test("an end that claims more than came, or another content, loads nothing", async () => {
  for (const lastSequences of [[1_000, 0], [0, 0, 0, 0, 0, 0, 0, 5], [], [0, 0]]) {
    await using hostile = await HostileRig.start();
    using session = await hostile.openUpTo("manifest");
    await session.say(WORDS.find(({ kind }) => kind === "manifest")!);
    await session.say({ kind: "end", lastSequences, root: "00".repeat(32) });
    await ended(session);
    expect((await hostile.failure()).message).toMatch(/does not get on|the roots differ|streams was told/);
    expect(await hostile.leftovers()).toEqual([]);
  }
}, 30_000);

test("of two that come at once under one name, or for one memory, one is promised it", async () => {
  await using hostile = await HostileRig.start();
  const sessions = await Promise.all([hostile.open(), hostile.open()]);
  await Promise.all(sessions.map((session) => session.say(offer())));
  const answers = await Promise.all(sessions.map((session) => session.expect("checked")));
  expect(answers.map(({ ok }) => ok).sort()).toEqual([false, true]);
  for (const session of sessions) session[Symbol.dispose]();
});

test("the manifest of another machine loads nothing", async () => {
  await using hostile = await HostileRig.start();
  using session = await hostile.openUpTo("manifest");
  const machine = { ...offer().machine, device: [{ name: "d", type: "blk", image: "/etc/shadow" }] };
  await session.say({ kind: "manifest", manifest: { machine, devices: [], memory: { totalBytes: 1 } } });
  await ended(session);
  expect(await hostile.failure()).toBeInstanceOf(FormatError);
  expect(await hostile.leftovers()).toEqual([]);
});
