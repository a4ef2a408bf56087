import { describe, expect, test } from "bun:test";
import { BackendSession } from "../../src/backend/mod.ts";
import { CompatibilityError } from "../../src/errors.ts";
import { baseFeatures, type FrontendOptions, reconnect, VhostUserFrontend } from "../../src/frontend/mod.ts";
import { drainEvent, EventLoop, UnixSocket } from "../../src/sys/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";
import { EchoDriver } from "../support/driven-frontend.ts";
import { SlowDevice } from "../support/slow-device.ts";
import { SpawnedBackend } from "../support/spawn-backend.ts";
import { TestDevice } from "../support/test-device.ts";

const REQUESTS = 1_500;
const TYPE = { name: "test", id: 63, minQueues: 1 };

function optionsFor(packed: boolean): FrontendOptions {
  return {
    type: TYPE,
    baseFeatures: baseFeatures | (packed ? virtioFeature.RING_PACKED : 0n),
    queueCount: 1,
  };
}

const driverFeatures = (packed: boolean) =>
  virtioFeature.VERSION_1 | (packed ? virtioFeature.RING_PACKED : 0n);

describe.each([false, true])("packed: %p", (packed) => {
  test("a device that is killed under load, three times: every request comes back exactly once", async () => {
    using loop = new EventLoop();
    using driver = new EchoDriver({ packed });
    using stack = new DisposableStack();
    let backend = stack.use(await SpawnedBackend.start({ slow: true }));
    let lost = 0;
    let frontend = new VhostUserFrontend(backend.connect(), loop, {
      ...optionsFor(packed),
      onDisconnect: () => lost++,
    });
    frontend.ackFeatures(driverFeatures(packed));
    frontend.activate(driver.regions, driver.interrupt, [driver.setup]);
    for (const killAt of [300, 700, 1_100, REQUESTS]) {
      while (driver.completed.length < killAt) {
        driver.fill(REQUESTS);
        driver.interrupt.take(0);
        loop.runOnce(1);
        driver.take();
      }
      if (killAt === REQUESTS) break;
      driver.fill(REQUESTS);
      await backend.kill();
      loop.runOnce(100);
      backend = stack.use(await SpawnedBackend.start({ slow: true }));
      frontend = reconnect(frontend, backend.connect(), driver.regions, driver.interrupt, [driver.setup]);
      driver.take();
    }
    expect(lost).toBe(3);
    expect(driver.outstanding).toBe(0);
    expect([...driver.completed].sort((a, b) => a - b)).toEqual(
      Array.from({ length: REQUESTS }, (_, i) => i),
    );
    frontend[Symbol.dispose]();
  }, 30_000);
});

describe("what is refused", () => {
  function pairOf(loop: EventLoop, device: TestDevice, stack: DisposableStack): UnixSocket {
    const [ours, theirs] = UnixSocket.pair();
    stack.use(new BackendSession(theirs, device, loop, () => {}));
    return ours;
  }
  const channel = (loop: EventLoop) => ({ channel: { whileWaiting: () => void loop.runOnce(0) } });

  test("features that the new back-end lacks; the old front-end stays as it was and another can be tried", () => {
    using loop = new EventLoop();
    using stack = new DisposableStack();
    using driver = new EchoDriver();
    const options = { ...optionsFor(false), ...channel(loop) };
    const old = new VhostUserFrontend(pairOf(loop, new TestDevice(1, 0x3n), stack), loop, options);
    old.ackFeatures(0x3n | virtioFeature.VERSION_1);
    old.activate(driver.regions, driver.interrupt, [driver.setup]);
    const retry = (device: TestDevice) =>
      reconnect(old, pairOf(loop, device, stack), driver.regions, driver.interrupt, [driver.setup]);
    expect(() => retry(new TestDevice(1, 0x1n))).toThrow(
      new CompatibilityError("the new back-end lacks what the driver uses: bit 1"),
    );
    expect(old.inflight).toBeDefined();
    const next = retry(new TestDevice(1, 0x7n));
    driver.fill(3);
    for (let i = 0; i < 10; i++) loop.runOnce(0);
    driver.take();
    expect(driver.completed).toEqual([0, 1, 2]);
    expect(drainEvent(driver.interrupt.callFor(0))).toBe(true);
    next[Symbol.dispose]();
  });

  test("without an inflight buffer nobody knows what was in flight, unless the device keeps the order", () => {
    using loop = new EventLoop();
    using stack = new DisposableStack();
    using driver = new EchoDriver();
    const options = {
      ...optionsFor(false),
      ...channel(loop),
      allowedProtocolFeatures: ["REPLY_ACK", "MQ"] as const,
    };
    const old = new VhostUserFrontend(pairOf(loop, new TestDevice(1), stack), loop, options);
    old.ackFeatures(virtioFeature.VERSION_1);
    old.activate(driver.regions, driver.interrupt, [driver.setup]);
    driver.fill(2);
    for (let i = 0; i < 10; i++) loop.runOnce(0);
    const again = (completesInOrder: boolean) =>
      reconnect(
        old,
        pairOf(loop, new SlowDevice(loop, 1), stack),
        driver.regions,
        driver.interrupt,
        [driver.setup],
        { completesInOrder },
      );
    expect(() => again(false)).toThrow("kept no inflight buffer");
    using next = again(true);
    driver.fill(4);
    for (let i = 0; i < 50 && driver.completed.length < 4; i++) {
      loop.runOnce(5);
      driver.take();
    }
    expect([...driver.completed].sort()).toEqual([0, 1, 2, 3]);
    expect(next.isActive).toBe(true);
  });
});
