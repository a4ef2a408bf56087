import { describe, expect, test } from "bun:test";
import { PeerError } from "../../src/errors.ts";
import { type FrontendOptions, VhostUserFrontend } from "../../src/frontend/mod.ts";
import { encodeState } from "../../src/state/mod.ts";
import { drainEvent, EventLoop } from "../../src/sys/mod.ts";
import { type ProtocolFeature, virtioFeature } from "../../src/wire/mod.ts";
import { EchoDriver } from "../support/driven-frontend.ts";
import { SpawnedBackend } from "../support/spawn-backend.ts";
import { stateBulk } from "../support/state-bulk.ts";

const MiB = 1 << 20;
const RING = [
  "SET_VRING_NUM",
  "SET_VRING_ADDR",
  "SET_VRING_BASE",
  "SET_VRING_CALL",
  "SET_VRING_KICK",
  "SET_VRING_ENABLE",
];
const ACTIVATE = ["SET_MEM_TABLE", ...RING, ...RING];
const STOP = ["SET_VRING_ENABLE", "GET_VRING_BASE", "SET_VRING_ENABLE", "GET_VRING_BASE"];
const STATE = ["SET_DEVICE_STATE_FD", "CHECK_DEVICE_STATE"];

function options(features: readonly ProtocolFeature[]): FrontendOptions {
  return {
    type: { name: "test", id: 63, minQueues: 16 },
    baseFeatures: virtioFeature.VERSION_1,
    allowedProtocolFeatures: features,
  };
}

function roundTrips(driver: EchoDriver, loop: EventLoop, upTo: number): void {
  driver.fill(upTo);
  for (let turns = 0; turns < 2_000 && driver.completed.length < upTo; turns++) {
    loop.runOnce(1);
    driver.take();
  }
  expect(driver.completed.length).toBe(upTo);
}

/** The back-end's device tells that its config space has changed; whether the driver was interrupted for it. */
function configChangeArrives(backend: SpawnedBackend, driver: EchoDriver, loop: EventLoop): boolean {
  for (let turns = 0; turns < 2_000; turns++) {
    loop.runOnce(1);
    if (drainEvent(driver.interrupt.configChange)) return true;
    if (backend.process.exitCode !== null) break;
  }
  return false;
}

describe.each([false, true])("lifecycle in two processes, back-end request channel: %p", (withRequests) => {
  test("activate, reset, activate, sleep, snapshot, restore, wake, shutdown: 2 of 16 queues", async () => {
    using backend = await SpawnedBackend.start();
    using loop = new EventLoop();
    using first = new EchoDriver();
    using second = new EchoDriver({ index: 1, guestAddress: 1 << 30 });
    const drivers = [first, second];
    const regions = drivers.flatMap((driver) => driver.regions);
    const queues = (bases?: ReadonlyMap<number, number>) =>
      drivers.map(({ setup }) => ({ ...setup, base: bases?.get(setup.index) ?? setup.base }));
    const features: ProtocolFeature[] = [
      "CONFIG",
      "DEVICE_STATE",
      ...(withRequests ? (["BACKEND_REQ"] as const) : []),
    ];
    const frontend = new VhostUserFrontend(backend.connect(), loop, options(features));
    expect(frontend.queueMaxSizes).toEqual(new Array(16).fill(32768));
    expect([...new BigUint64Array(frontend.readConfig(0, 16).buffer)]).toEqual([1n, 2n]);
    frontend.activate(regions, first.interrupt, queues());
    frontend.reset();
    const changed = () => {
      backend.process.kill("SIGUSR1");
      if (withRequests) expect(configChangeArrives(backend, first, loop)).toBe(true);
    };
    frontend.activate(regions, first.interrupt, queues());
    changed();
    for (const driver of drivers) roundTrips(driver, loop, 5);
    const bases = frontend.sleep();
    expect([...bases]).toEqual([
      [0, 5],
      [1, 5],
    ]);
    const state: Buffer[] = [];
    await frontend.saveState((bytes) => void state.push(Buffer.from(bytes)));
    await frontend.loadState(state);
    frontend.wake(regions, first.interrupt, queues(bases));
    changed();
    for (const driver of drivers) roundTrips(driver, loop, 9);
    expect(drainEvent(first.interrupt.configChange)).toBe(false);
    frontend[Symbol.dispose]();
    const negotiation = [
      "SET_OWNER",
      "GET_FEATURES",
      "SET_FEATURES",
      "GET_PROTOCOL_FEATURES",
      "SET_PROTOCOL_FEATURES",
    ];
    expect(await backend.report()).toEqual({
      end: "disconnected",
      messages: [
        ...negotiation,
        ...(withRequests ? ["SET_BACKEND_REQ_FD"] : []),
        "GET_CONFIG",
        ...ACTIVATE,
        ...STOP,
        ...ACTIVATE,
        ...STOP,
        ...STATE,
        ...STATE,
        ...ACTIVATE,
      ],
      received: 0,
    });
  });
});

test("a back-end that is killed while its state is read or written", async () => {
  for (const direction of ["save", "load"] as const) {
    using backend = await SpawnedBackend.start({ bulkBytes: 64 * MiB });
    using loop = new EventLoop();
    let lost = 0;
    using frontend = new VhostUserFrontend(backend.connect(), loop, {
      ...options(["DEVICE_STATE"]),
      onDisconnect: () => lost++,
    });
    let bytes = 0;
    const transfer =
      direction === "save"
        ? frontend.saveState((chunk) => {
            bytes += chunk.length;
            if (bytes > MiB) backend.process.kill("SIGKILL");
          })
        : frontend.loadState(killingMidway(() => backend.process.kill("SIGKILL")));
    expect(await transfer.then(String, (error: unknown) => error)).toBeInstanceOf(PeerError);
    await backend.process.exited;
    loop.runOnce(100);
    expect(lost).toBe(1);
  }
});

/** A proper state of 64 MiB, with a call after 8 of them. */
function* killingMidway(kill: () => void): Generator<Uint8Array> {
  const header = { deviceType: "test", version: 1, oldestCompatibleVersion: 1, features: 0n };
  const sections = [{ name: "bulk", bytes: stateBulk(64 * MiB) }];
  let left = 8 * MiB;
  for (const chunk of encodeState(header, sections)) {
    const before = left;
    left -= chunk.length;
    if (before > 0 && left <= 0) kill();
    yield chunk;
  }
}

test("a front-end that is gone in the middle of a transfer leaves a back-end that serves the next", async () => {
  using backend = await SpawnedBackend.start({ bulkBytes: 8 * MiB });
  using loop = new EventLoop();
  const first = new VhostUserFrontend(backend.connect(), loop, options(["DEVICE_STATE"]));
  const saving = first.saveState(() => {
    throw new PeerError("enough");
  });
  expect(await saving.then(String, (error: unknown) => error)).toBeInstanceOf(PeerError);
  first[Symbol.dispose]();
  expect((await backend.report()).end).toBe("disconnected");
  using next = new VhostUserFrontend(backend.connect(), loop, options(["DEVICE_STATE"]));
  let bytes = 0;
  await next.saveState((chunk) => {
    bytes += chunk.length;
  });
  expect(bytes).toBeGreaterThan(8 * MiB);
});
