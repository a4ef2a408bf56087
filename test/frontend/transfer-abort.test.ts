import { describe, expect, test } from "bun:test";
import { loadDeviceState, saveDeviceState, VhostUserFrontend } from "../../src/frontend/mod.ts";
import { encodeState } from "../../src/state/mod.ts";
import { EventLoop } from "../../src/sys/mod.ts";
import { BackendRig } from "../support/backend-rig.ts";
import { runBeside, until } from "../support/loop.ts";
import { SpawnedBackend } from "../support/spawn-backend.ts";
import { stateBulk } from "../support/state-bulk.ts";

const MiB = 1 << 20;
const REASON = new Error("the operator pressed Ctrl-C");

/** A back-end beside the test, with a state of 8 MiB; and a transfer in both directions that must work at the end. */
function rigged() {
  const rig = new BackendRig().negotiate(["REPLY_ACK", "DEVICE_STATE"]);
  rig.device.bulk = () => stateBulk(8 * MiB);
  rig.device.counter = 7;
  rig.owned.use(runBeside(rig.loop));
  const worksOn = async () => {
    const state: Buffer[] = [];
    await saveDeviceState(rig.client, (bytes) => void state.push(Buffer.from(bytes)));
    rig.device.counter = 0;
    await loadDeviceState(rig.client, state);
    expect([rig.device.counter, rig.device.bulkReceived]).toEqual([7, 8 * MiB]);
    expect(rig.client.getFeatures()).toBe(rig.handler.session.offered);
  };
  return { rig, worksOn };
}

const outcome = (promise: Promise<unknown>) => promise.then(String, (error: unknown) => error);

describe.each(["pipe", "socketpair"] as const)("aborted over a %s, the next transfer works", (channel) => {
  test("before it began: nothing is sent", async () => {
    const { rig, worksOn } = rigged();
    using _rig = rig;
    const options = { signal: AbortSignal.abort(REASON), channel };
    expect(await outcome(saveDeviceState(rig.client, () => {}, options))).toBe(REASON);
    expect(await outcome(loadDeviceState(rig.client, [], options))).toBe(REASON);
    await worksOn();
  });

  test("while a state is saved", async () => {
    const { rig, worksOn } = rigged();
    using _rig = rig;
    const abort = new AbortController();
    let bytes = 0;
    const take = (chunk: Uint8Array) => {
      bytes += chunk.length;
      if (bytes > MiB) abort.abort(REASON);
    };
    expect(await outcome(saveDeviceState(rig.client, take, { signal: abort.signal, channel }))).toBe(REASON);
    expect(bytes).toBeLessThan(8 * MiB);
    await worksOn();
  });

  test("while a state is loaded, and while its source gives nothing", async () => {
    const { rig, worksOn } = rigged();
    using _rig = rig;
    const abort = new AbortController();
    function* chunks() {
      const header = { deviceType: "test", version: 1, oldestCompatibleVersion: 1, features: 0n };
      let bytes = 0;
      for (const chunk of encodeState(header, rig.device.snapshot())) {
        bytes += chunk.length;
        if (bytes > MiB) abort.abort(REASON);
        yield chunk;
      }
    }
    expect(await outcome(loadDeviceState(rig.client, chunks(), { signal: abort.signal, channel }))).toBe(
      REASON,
    );
    const silent = new AbortController();
    let isAsked = false;
    async function* nothing(): AsyncGenerator<Uint8Array> {
      isAsked = true;
      await new Promise<never>(() => {});
    }
    const loading = outcome(
      loadDeviceState(rig.client, nothing(), { signal: silent.signal, channel, idleTimeoutMs: 60_000 }),
    );
    await until(() => isAsked);
    silent.abort(REASON);
    expect(await loading).toBe(REASON);
    expect(rig.device.calls).not.toContain("restore");
    await worksOn();
  });

  test("while CHECK is awaited: its late answer is taken for no other's", async () => {
    const { rig, worksOn } = rigged();
    using _rig = rig;
    const abort = new AbortController();
    const { checkDeviceState } = rig.handler;
    rig.handler.checkDeviceState = () => {
      abort.abort(REASON);
      return checkDeviceState.call(rig.handler);
    };
    const saving = saveDeviceState(rig.client, () => {}, { signal: abort.signal, channel });
    expect(await outcome(saving)).toBe(REASON);
    expect(rig.channel.isBroken).toBe(false);
    await worksOn();
  });
});

test("in two processes: an aborted CHECK is no hang-up, and the sleeping device is saved afterwards", async () => {
  using backend = await SpawnedBackend.start({ bulkBytes: 8 * MiB });
  using loop = new EventLoop();
  let lost = 0;
  using frontend = new VhostUserFrontend(backend.connect(), loop, {
    type: { name: "test", id: 63, minQueues: 1 },
    baseFeatures: 0n,
    allowedProtocolFeatures: ["DEVICE_STATE"],
    onDisconnect: () => lost++,
  });
  const state: Buffer[] = [];
  await frontend.saveState((bytes) => void state.push(Buffer.from(bytes)));
  const abort = new AbortController();
  function* chunks() {
    yield* state;
    // The last chunk is on its way: what is left is the wait for the verdict, which this process does not hurry.
    process.kill(backend.process.pid, "SIGSTOP");
    setImmediate(() => abort.abort(REASON));
  }
  expect(await outcome(frontend.loadState(chunks(), { signal: abort.signal }))).toBe(REASON);
  process.kill(backend.process.pid, "SIGCONT");
  for (let turns = 0; turns < 20; turns++) loop.runOnce(1);
  expect(lost).toBe(0);
  let bytes = 0;
  await frontend.saveState((chunk) => {
    bytes += chunk.length;
  });
  expect(bytes).toBe(Buffer.concat(state).length);
  frontend[Symbol.dispose]();
  expect((await backend.report()).end).toBe("disconnected");
});
