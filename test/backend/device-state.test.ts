import { describe, expect, test } from "bun:test";
import { PeerError, VhuError } from "../../src/errors.ts";
import { loadDeviceState, saveDeviceState, type TransferOptions } from "../../src/frontend/mod.ts";
import { encodeState, type StateHeader } from "../../src/state/mod.ts";
import {
  createMemfd,
  createPipe,
  libc,
  NativeBuffer,
  O,
  openFile,
  readSome,
  writeSome,
} from "../../src/sys/mod.ts";
import { type ProtocolFeature, virtioFeature } from "../../src/wire/mod.ts";
import { BackendRig, type RigOptions } from "../support/backend-rig.ts";
import { runBeside, until } from "../support/loop.ts";
import { scripted } from "../support/scripted-backend.ts";

const FEATURES: readonly ProtocolFeature[] = ["REPLY_ACK", "DEVICE_STATE"];
const KiB = 1024;
const MiB = 1024 * KiB;

function rigWith(options: RigOptions = {}, features = 0x3n): BackendRig & { beside: Disposable } {
  const rig = new BackendRig(options).negotiate(FEATURES, features);
  return Object.assign(rig, { beside: rig.owned.use(runBeside(rig.loop)) });
}

async function save(rig: BackendRig, options?: TransferOptions): Promise<Uint8Array> {
  const pieces: Buffer[] = [];
  await saveDeviceState(rig.client, (bytes) => void pieces.push(Buffer.from(bytes)), options);
  return Buffer.concat(pieces);
}

function load(rig: BackendRig, state: Uint8Array, options?: TransferOptions): Promise<number> {
  return loadDeviceState(rig.client, [state], options);
}

/** Some bytes that compress to nothing else, in pieces of 64 KiB. */
function* bulk(sizeBytes: number): Generator<Uint8Array> {
  const piece = new Uint8Array(64 * KiB);
  for (let i = 0; i < piece.length; i++) piece[i] = (i * 2654435761) >>> 13;
  for (let left = sizeBytes; left > 0; left -= piece.length)
    yield piece.subarray(0, Math.min(left, piece.length));
}

const header = (part: Partial<StateHeader> = {}): StateHeader => ({
  deviceType: "test",
  version: 1,
  oldestCompatibleVersion: 1,
  features: 0x3n | virtioFeature.VERSION_1,
  ...part,
});

function stateOf(counter: number, part?: Partial<StateHeader>): Uint8Array {
  const sections = [
    { name: "counter", value: { counter } },
    { name: "bulk", bytes: [] },
  ];
  return Buffer.concat([...encodeState(header(part), sections)].map((chunk) => Buffer.from(chunk)));
}

async function failure(promise: Promise<unknown>): Promise<VhuError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof VhuError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

const lastError = (rig: BackendRig) =>
  rig.log.lines.filter(({ level }) => level === "error").at(-1)?.message ?? "";

describe.each([
  ["pipe", "frontend"],
  ["pipe", "own"],
  ["socketpair", "frontend"],
] as const)("over a %s of the front-end's, fd of the %s", (channel, whose) => {
  test.each([0, 1, 64 * KiB - 1, 64 * KiB, 64 * KiB + 1, MiB - 1, MiB, MiB + 1, 5 * MiB])(
    "%d bytes there and back",
    async (sizeBytes) => {
      using source = rigWith({ deviceState: { channel: whose } });
      source.device.counter = 42;
      source.device.bulk = () => bulk(sizeBytes);
      const state = await save(source, { channel });
      expect(state.length).toBeGreaterThan(sizeBytes);
      using target = rigWith({ deviceState: { channel: whose } });
      expect(await load(target, state, { channel })).toBe(state.length);
      expect([target.device.counter, target.device.bulkReceived]).toEqual([42, sizeBytes]);
    },
  );
});

test("nothing is written before the reply", () => {
  using rig = new BackendRig();
  rig.negotiate(FEATURES);
  using pipe = createPipe({ nonBlocking: true });
  expect(rig.client.setDeviceStateFd("save", pipe.writeEnd)).toBeUndefined();
  const buffer = new NativeBuffer(64);
  expect(readSome(pipe.readEnd, buffer)).toBe("would-block");
  rig.settle();
  expect(readSome(pipe.readEnd, buffer)).toBeGreaterThan(0);
});

describe("the order of things", () => {
  test("a second SET while one runs is refused, and the first goes on", async () => {
    using rig = new BackendRig().negotiate(FEATURES);
    rig.device.bulk = () => bulk(MiB);
    using pipe = createPipe({ nonBlocking: true });
    rig.client.setDeviceStateFd("save", pipe.writeEnd);
    using other = createPipe();
    expect(() => rig.client.setDeviceStateFd("load", other.readEnd)).toThrow("refused to load");
    pipe.writeEnd[Symbol.dispose]();
    const buffer = new NativeBuffer(MiB);
    let total = 0;
    for (let moved = 1 as number | string; moved !== 0; ) {
      rig.settle();
      moved = readSome(pipe.readEnd, buffer);
      if (typeof moved === "number") total += moved;
    }
    expect(total).toBeGreaterThan(MiB);
    rig.owned.use(runBeside(rig.loop));
    await rig.client.checkDeviceState(1_000);
  });

  test("CHECK without a transfer, twice after one, and before the end of a SAVE", async () => {
    using rig = rigWith();
    const check = () => rig.client.checkDeviceState(1_000);
    expect((await failure(check())).details.answer).toBe(1n);
    await save(rig);
    expect((await failure(check())).details.answer).toBe(1n);
    rig.device.bulk = () => bulk(MiB);
    using pipe = createPipe();
    rig.client.setDeviceStateFd("save", pipe.writeEnd);
    expect((await failure(check())).details.answer).toBe(1n);
    expect(lastError(rig)).toContain("before the state was read to its end");
    // The next one works: nothing of the failed one is left.
    rig.device.bulk = () => [];
    await save(rig);
  });

  test("SET while a ring runs is refused with 0x101, and a ring does not start while one runs", () => {
    using rig = new BackendRig().negotiate(FEATURES).shareMemory();
    const ring = rig.ring().start();
    using pipe = createPipe();
    expect(() => rig.client.setDeviceStateFd("save", pipe.writeEnd)).toThrow("(error 1)");
    ring.stop();
    rig.device.bulk = () => bulk(MiB);
    rig.client.setDeviceStateFd("save", pipe.writeEnd);
    expect(rig.refusal(() => rig.client.setVringKick(0, ring.kick))).toContain(
      "during a device-state transfer",
    );
    // The front-end gives up: both its ends are closed, and the source is resumable at once.
    pipe[Symbol.dispose]();
    rig.client.setVringKick(0, ring.kick);
    expect(ring.echo("resumed")).toBe("resumed");
  });

  test("a wrong direction, a phase other than 0, and fds that are no stream are refused", () => {
    using rig = new BackendRig().negotiate(FEATURES);
    using pipe = createPipe();
    const request = (direction: number, phase: number) => Uint8Array.of(direction, 0, 0, 0, phase, 0, 0, 0);
    for (const [direction, phase] of [
      [2, 0],
      [0, 1],
    ] as const) {
      const answer = rig.raw(42, request(direction, phase), { fds: [pipe.writeEnd] });
      expect(answer).toMatchObject({ payload: Uint8Array.of(1, 1, 0, 0, 0, 0, 0, 0) });
    }
    using nothing = openFile("/dev/null", O.RDWR);
    expect(rig.raw(42, request(0, 0), { fds: [nothing] })).toMatchObject({
      payload: Uint8Array.of(1, 1, 0, 0, 0, 0, 0, 0),
    });
    expect(rig.end).toBeUndefined();
  });

  test("LOAD works before SET_FEATURES, memory and rings, as QEMU does it; then the start with the saved base", async () => {
    using source = rigWith().shareMemory();
    const ring = source.ring().start();
    ring.echo("one");
    const base = ring.stop();
    source.device.counter = 9;
    const state = await save(source);
    using target = new BackendRig();
    target.client.setOwner();
    target.client.setProtocolFeatures(
      target.table.protocolFeature.REPLY_ACK! | target.table.protocolFeature.DEVICE_STATE!,
    );
    target.client.resetDevice();
    target.owned.use(runBeside(target.loop));
    await load(target, state);
    expect(target.device.counter).toBe(9);
    target.client.setFeatures(virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1 | 0x3n);
    const onward = target.shareMemory().ring();
    onward.start(base);
    expect(onward.stop()).toBe(base);
  });
});

describe("a state that does not fit leaves the device as it was", () => {
  const cases: readonly (readonly [string, (state: Uint8Array) => Uint8Array])[] = [
    ["nothing at all", () => new Uint8Array(0)],
    ["garbage", () => new Uint8Array(5000).fill(0x5a)],
    ["cut off", (state) => state.subarray(0, state.length - 1)],
    ["a byte too many", (state) => Buffer.concat([state, Buffer.of(0)])],
    ["twice the same", (state) => Buffer.concat([state, state])],
  ];
  test.each(cases)("%s", async (_what, damage) => {
    using rig = rigWith();
    rig.device.counter = 7;
    const error = await failure(load(rig, damage(stateOf(99))));
    expect(error).toBeInstanceOf(PeerError);
    expect(rig.device.counter).toBe(7);
    expect(rig.device.calls).not.toContain("restore");
    await load(rig, stateOf(8));
    expect(rig.device.counter).toBe(8);
  });

  test("every single flipped byte", async () => {
    using rig = rigWith();
    rig.device.counter = 7;
    const state = stateOf(99);
    for (let at = 0; at < state.length; at++) {
      const flipped = Uint8Array.from(state);
      flipped[at]! ^= 0x10;
      await failure(load(rig, flipped));
      expect(rig.device.counter).toBe(7);
    }
  });

  test("another device type, too new a version, features that are not offered, a device that refuses", async () => {
    using rig = rigWith();
    rig.device.counter = 7;
    await failure(load(rig, stateOf(1, { deviceType: "blk" })));
    expect(lastError(rig)).toContain("is a blk's");
    await failure(load(rig, stateOf(1, { version: 9, oldestCompatibleVersion: 2 })));
    expect(lastError(rig)).toContain("needs version 2");
    await failure(load(rig, stateOf(1, { features: 1n << 20n })));
    expect(lastError(rig)).toContain("not offered here: bit 20");
    rig.device.failCommit = true;
    await failure(load(rig, stateOf(1)));
    expect(rig.device.calls.at(-1)).toBe("abort");
    expect(rig.device.counter).toBe(7);
  });

  test("larger than the limit: the writer is stopped", async () => {
    using source = rigWith();
    source.device.bulk = () => bulk(MiB);
    const state = await save(source);
    using rig = rigWith({ deviceState: { spool: { maxBytes: 300_000 } } });
    rig.device.counter = 7;
    await failure(load(rig, state));
    expect(rig.device.counter).toBe(7);
    await failure(save(rig, { maxBytes: 10 }));
  });
});

describe("features of a loaded state", () => {
  test("are compared with SET_FEATURES at the first ring start, and never overwrite it", async () => {
    using rig = rigWith().shareMemory();
    await load(rig, stateOf(1, { features: 0x1n | virtioFeature.VERSION_1 }));
    const ring = rig.ring().configure();
    expect(rig.refusal(() => rig.client.setVringKick(0, ring.kick))).toContain(
      "made with other features: bit 1",
    );
    rig.client.setFeatures(virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1 | 0x1n);
    rig.client.setVringKick(0, ring.kick);
    expect(rig.handler.session.acked & 0xffn).toBe(0x1n);
  });

  test("a state that was saved before a driver chose any fits every choice; LOG_ALL does not count", async () => {
    for (const features of [0n, virtioFeature.VERSION_1]) {
      using rig = rigWith().shareMemory();
      await load(rig, stateOf(1, { features }));
      rig.client.setFeatures(
        virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1 | virtioFeature.LOG_ALL | 0x3n,
      );
      expect(rig.ring().start().echo("fresh")).toBe("fresh");
    }
  });
});

describe("a peer that does not play along", () => {
  const impatient: RigOptions = { deviceState: { idleTimeoutMs: 20 } };

  test("a reader that stalls: the transfer fails, CHECK says so, the source resumes", async () => {
    using rig = rigWith(impatient).shareMemory();
    rig.device.bulk = () => bulk(MiB);
    using pipe = createPipe();
    rig.client.setDeviceStateFd("save", pipe.writeEnd);
    await until(() => rig.log.lines.some(({ message }) => message.includes("no byte moved for 20 ms")));
    await failure(rig.client.checkDeviceState(1_000));
    expect(rig.ring().start().echo("on")).toBe("on");
  });

  test("a writer that stalls: CHECK waits for it no longer than the idle timeout", async () => {
    using rig = rigWith(impatient);
    rig.device.counter = 7;
    using pipe = createPipe();
    rig.client.setDeviceStateFd("load", pipe.readEnd);
    await failure(rig.client.checkDeviceState(2_000));
    expect(rig.device.counter).toBe(7);
  });

  test("a front-end that vanishes while its CHECK waits: the session ends, at once", async () => {
    using rig = rigWith();
    using pipe = createPipe();
    rig.client.setDeviceStateFd("load", pipe.readEnd);
    rig.channel.tryNotify(rig.table.byName.frontend.CHECK_DEVICE_STATE, {});
    rig.settle();
    expect(rig.end).toBeUndefined();
    rig.client[Symbol.dispose]();
    await until(() => rig.end !== undefined);
    expect(rig.end).toEqual({ kind: "disconnected" });
  });

  test("a front-end that gave up without CHECK can begin anew at once (QEMU, on an error)", async () => {
    using rig = new BackendRig().negotiate(FEATURES);
    rig.device.bulk = () => bulk(MiB);
    for (const direction of ["save", "load", "save"] as const) {
      using pipe = createPipe();
      rig.client.setDeviceStateFd(direction, direction === "save" ? pipe.writeEnd : pipe.readEnd);
    }
    rig.owned.use(runBeside(rig.loop));
    rig.device.bulk = () => [];
    await save(rig);
  });

  test.each(["pipe", "socketpair"] as const)(
    "a back-end that dies mid-way over a %s, in both directions",
    async (channel) => {
      using rig = rigWith();
      rig.device.bulk = () => bulk(8 * MiB);
      let seen = 0;
      const saving = saveDeviceState(
        rig.client,
        (bytes) => {
          seen += bytes.length;
          if (seen > MiB) rig.session[Symbol.dispose]();
        },
        { channel },
      );
      expect(await failure(saving)).toMatchObject({ name: "PeerError", reconnect: true });
      using other = rigWith();
      const endless = (function* () {
        for (let i = 0; ; i++) {
          if (i === 40) other.session[Symbol.dispose]();
          yield new Uint8Array(64 * KiB);
        }
      })();
      expect(await failure(loadDeviceState(other.client, endless, { channel }))).toMatchObject({
        name: "PeerError",
        reconnect: true,
      });
    },
  );

  test("a source of chunks that fails: no CHECK is sent, the target is as before", async () => {
    using rig = rigWith();
    rig.device.counter = 7;
    const chunks = (function* () {
      yield stateOf(99);
      throw new VhuError("STATE", "the file ended");
    })();
    expect((await failure(loadDeviceState(rig.client, chunks))).message).toBe("the file ended");
    expect(rig.device.counter).toBe(7);
    await load(rig, stateOf(3));
  });

  test("a state in a file of the front-end's is as good as a pipe", async () => {
    using rig = rigWith();
    const state = stateOf(5);
    using file = createMemfd("state", state.length);
    const buffer = new NativeBuffer(state.length);
    buffer.bytes.set(state);
    writeSome(file, buffer, 0, state.length);
    libc.lseek(file.number, 0, 0);
    rig.client.setDeviceStateFd("load", file);
    await rig.client.checkDeviceState(1_000);
    expect(rig.device.counter).toBe(5);
  });
});

describe("answers of a back-end", () => {
  test.each([
    [0x101n, 0, "error 1"],
    [0x1ffn, 0, "error 255"],
    [0x1n, 0, "error 1"],
    [0x0n, 0, "0 file descriptors"],
    [0x100n, 1, "1 file descriptors"],
    [0x101n, 1, "error 1"],
  ] as const)("%d with %d fds is an error, and nothing is leaked", (value, count, text) => {
    using backend = scripted([{ request: 42, value, fds: count }]);
    using pipe = createPipe();
    expect(() => backend.client.setDeviceStateFd("save", pipe.writeEnd)).toThrow(text);
  });
});
