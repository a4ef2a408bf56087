import { describe, expect, test } from "bun:test";
import { BackendSession } from "../../src/backend/mod.ts";
import { NegotiationError } from "../../src/errors.ts";
import { type FrontendOptions, VhostUserFrontend } from "../../src/frontend/mod.ts";
import { DirtyBitmap } from "../../src/memory/mod.ts";
import { createMemfd, EventLoop, UnixSocket } from "../../src/sys/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";
import { EchoDriver } from "../support/driven-frontend.ts";
import { TestDevice } from "../support/test-device.ts";

const PAGE = 4096;

class Rig implements Disposable {
  readonly loop = new EventLoop();
  readonly device: TestDevice;
  readonly session: BackendSession;
  readonly frontend: VhostUserFrontend;

  constructor(options: Partial<FrontendOptions> = {}, device = new TestDevice(4, 0xffn)) {
    const [ours, theirs] = UnixSocket.pair();
    this.device = device;
    this.session = new BackendSession(theirs, device, this.loop, () => {});
    this.frontend = new VhostUserFrontend(ours, this.loop, {
      type: { name: "test", id: 63, minQueues: 1 },
      baseFeatures: virtioFeature.VERSION_1 | virtioFeature.RING_PACKED,
      channel: { whileWaiting: () => void this.loop.runOnce(0) },
      ...options,
    });
  }

  echo(driver: EchoDriver, upTo: number): void {
    driver.fill(upTo);
    for (let i = 0; i < 16; i++) this.loop.runOnce(0);
    driver.take();
    expect(driver.completed.length).toBe(upTo);
  }

  [Symbol.dispose](): void {
    this.frontend[Symbol.dispose]();
    this.session[Symbol.dispose]();
    this.loop[Symbol.dispose]();
  }
}

test("more regions than a table holds go into slots, once: after sleep and wake only what changed is told", () => {
  using rig = new Rig();
  using driver = new EchoDriver();
  using fd = createMemfd("more", 12 * PAGE);
  const more = Array.from({ length: 12 }, (_, i) => ({
    layout: {
      guestAddress: (1 << 21) + i * PAGE,
      sizeBytes: PAGE,
      userAddress: 0x6000_0000 + i * PAGE,
      mmapOffset: i * PAGE,
    },
    fd,
  }));
  const known = () => rig.session.handler.memory.regions.length;
  rig.frontend.ackFeatures(virtioFeature.VERSION_1);
  rig.frontend.activate([...driver.regions, ...more], driver.interrupt, [driver.setup]);
  rig.echo(driver, 2);
  const bases = rig.frontend.sleep();
  expect(known()).toBe(13);
  rig.frontend.wake([...driver.regions, ...more.slice(2)], driver.interrupt, [
    { ...driver.setup, base: bases.get(0)! },
  ]);
  expect(known()).toBe(11);
  rig.echo(driver, 4);
});

test.each([false, true])(
  "a reset takes a fresh inflight buffer: the old one's positions are gone (packed: %p)",
  (packed) => {
    using rig = new Rig();
    const features = virtioFeature.VERSION_1 | (packed ? virtioFeature.RING_PACKED : 0n);
    for (let round = 0; round < 2; round++) {
      using driver = new EchoDriver({ packed, size: 16 });
      rig.frontend.ackFeatures(features);
      rig.frontend.activate(driver.regions, driver.interrupt, [driver.setup]);
      expect(rig.frontend.inflight).toBeDefined();
      rig.echo(driver, 5);
      rig.frontend.reset();
      expect(rig.frontend.inflight).toBeUndefined();
    }
  },
);

test("the back-end logs what it writes, from the middle of a run, through sleep and wake, until it is told to stop", () => {
  using rig = new Rig();
  using driver = new EchoDriver();
  using bitmap = new DirtyBitmap(1 << 20);
  const pages = () => [...bitmap.take().runs()].map(({ offset }) => offset);
  rig.frontend.ackFeatures(virtioFeature.VERSION_1);
  rig.frontend.activate(driver.regions, driver.interrupt, [driver.setup]);
  rig.echo(driver, 2);
  expect(rig.frontend.canLog).toBe(true);
  rig.frontend.startLog(bitmap);
  rig.echo(driver, 4);
  // The used ring, and the buffers.
  expect(pages()).toEqual([0x20000, 0x80000]);
  const bases = rig.frontend.sleep();
  rig.frontend.wake(driver.regions, driver.interrupt, [{ ...driver.setup, base: bases.get(0)! }]);
  rig.echo(driver, 6);
  expect(pages()).toEqual([0x20000, 0x80000]);
  rig.frontend.stopLog();
  rig.echo(driver, 8);
  expect(pages()).not.toContain(0x20000);
  using silent = new Rig({ allowedProtocolFeatures: ["REPLY_ACK", "MQ", "CONFIG"] });
  expect(silent.frontend.canLog).toBe(false);
  expect(() => silent.frontend.startLog(bitmap)).toThrow("no dirty log");
});

describe("the virtio device", () => {
  test("queue sizes are powers of two; without MQ there are as many queues as the type must have", () => {
    using sized = new Rig({ maxQueueSize: 1000 });
    expect(sized.frontend.queueMaxSizes).toEqual([512, 512, 512, 512]);
    using single = new Rig({
      allowedProtocolFeatures: ["REPLY_ACK"],
      localConfig: Uint8Array.of(1, 2, 3, 4),
    });
    expect(single.frontend.queueMaxSizes).toEqual([32768]);
    single.frontend.writeConfig(1, Uint8Array.of(9));
    expect([...single.frontend.readConfig(0, 3)]).toEqual([1, 9, 3]);
    expect(() => single.frontend.readConfig(2, 3)).toThrow("no local config space covers");
  });

  test("features beyond the device's are refused, and the mask leaves out what the machine does not want", () => {
    using rig = new Rig({ baseFeatures: virtioFeature.VERSION_1 });
    expect(rig.frontend.features).toBe(0xffn | virtioFeature.VERSION_1);
    expect(() => rig.frontend.ackFeatures(virtioFeature.RING_PACKED)).toThrow(NegotiationError);
    expect(rig.frontend.sharedMemoryRegions).toEqual([{ id: 3, sizeBytes: 1 << 20 }]);
  });
});
