import { describe, expect, test } from "bun:test";
import type { RateLimit } from "../../../devices/rate-limit/mod.ts";
import { RngDevice } from "../../../devices/rng/mod.ts";
import { CompatibilityError, FormatError, UsageError } from "../../../src/errors.ts";
import { MAX_RNG_REQUEST_BYTES } from "../../../src/limits.ts";
import { encodeState } from "../../../src/state/mod.ts";
import { EventLoop } from "../../../src/sys/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import { DrivenMemory, DrivenQueue } from "../../support/driven-queue.ts";
import { recordingLogger } from "../../support/recording-logger.ts";

const SHORT_MS = 20;
/** No test waits for its end. */
const LONG_MS = 3_600_000;

function setUp(rateLimit?: RateLimit, options: { readonly packed?: boolean } = {}) {
  const stack = new DisposableStack();
  const loop = stack.use(new EventLoop());
  const logger = recordingLogger();
  const device = new RngDevice(loop, { rateLimit, logger });
  const driven = stack.use(new DrivenMemory());
  const queue = stack.use(new DrivenQueue(driven, device, 0, options));
  return { stack, loop, logger, device, driven, queue, [Symbol.dispose]: () => stack.dispose() };
}

function distinct(bytes: Uint8Array): number {
  return new Set(bytes).size;
}

describe("requests", () => {
  test.each([false, true])(
    "are filled over all their pieces, each time with other bytes (packed: %p)",
    (packed) => {
      using rng = setUp(undefined, { packed });
      const first = rng.queue.run([{ room: 1000 }, { room: 24 }, { room: 3000 }]);
      const second = rng.queue.run([{ room: 4024 }]);
      expect([first.writtenBytes, second.writtenBytes]).toEqual([4024, 4024]);
      expect(Buffer.compare(first.written, second.written)).not.toBe(0);
      // 4024 bytes that are not random enough to hit 200 of 256 values would be a fault: the odds are beyond 2^-1000.
      for (const { written } of [first, second]) expect(distinct(written)).toBeGreaterThan(200);
      expect(distinct(first.written.subarray(1000, 1024))).toBeGreaterThan(4);
      expect(rng.queue.calls).toBe(2);
    },
  );

  test("get 64 KiB at most, and nothing beyond what is reported is written", () => {
    using rng = setUp();
    const used = rng.queue.run([{ room: MAX_RNG_REQUEST_BYTES + 4096 }]);
    expect(used.writtenBytes).toBe(MAX_RNG_REQUEST_BYTES);
    expect(distinct(used.written.subarray(MAX_RNG_REQUEST_BYTES))).toBe(1);
  });

  test("without room are given back empty, which is told once", () => {
    using rng = setUp();
    for (let i = 0; i < 3; i++) expect(rng.queue.run([{ out: new Uint8Array(8) }]).writtenBytes).toBe(0);
    expect(rng.logger.lines).toHaveLength(1);
  });

  test("more of them than are served in a turn go on in the next", () => {
    using rng = setUp();
    using queue = new DrivenQueue(rng.driven, rng.device, 0, { size: 512 });
    for (let i = 0; i < 300; i++) expect(queue.add([{ room: 16 }])).toBe(true);
    queue.kick();
    let served = 0;
    for (; queue.take() !== undefined; served++);
    expect(served).toBe(256);
    rng.loop.runOnce(LONG_MS);
    for (; queue.take() !== undefined; served++);
    expect(served).toBe(300);
  });
});

describe("rate limit", () => {
  test("gives what is left, then waits for the next period", () => {
    using rng = setUp({ bytes: 100, periodMs: SHORT_MS });
    expect(rng.queue.run([{ room: 60 }]).writtenBytes).toBe(60);
    expect(rng.queue.run([{ room: 60 }]).writtenBytes).toBe(40);
    rng.queue.add([{ room: 60 }]);
    rng.queue.kick();
    let used = rng.queue.take();
    while (used === undefined) {
      rng.loop.runOnce(LONG_MS);
      used = rng.queue.take();
    }
    expect(used.writtenBytes).toBe(60);
  });

  test("no random byte is given while nothing is left, and a stopped queue is not woken", () => {
    using rng = setUp({ bytes: 10, periodMs: LONG_MS });
    rng.queue.run([{ room: 10 }]);
    rng.queue.add([{ room: 10 }]);
    rng.queue.kick();
    rng.queue.stop();
    rng.loop.runOnce(0);
    expect(rng.queue.take()).toBeUndefined();
  });

  test("a reset gives nothing back", () => {
    using rng = setUp({ bytes: 10, periodMs: LONG_MS });
    rng.queue.run([{ room: 10 }]);
    rng.queue.stop();
    rng.device.reset();
    rng.queue.add([{ room: 10 }]);
    rng.queue.start();
    expect(rng.queue.take()).toBeUndefined();
  });

  test.each([
    { bytes: 0, periodMs: 1 },
    { bytes: 1, periodMs: 0 },
    { bytes: 1.5, periodMs: 1 },
  ])("one that lets nothing pass is refused: %p", (rateLimit) => {
    using loop = new EventLoop();
    expect(() => new RngDevice(loop, { rateLimit })).toThrow(UsageError);
  });
});

describe("state", () => {
  test("what is used up goes along, and a request that waits is served by the next process", () => {
    using rng = setUp({ bytes: 100, periodMs: LONG_MS });
    rng.queue.run([{ room: 70 }]);
    const state = saveDevice(rng.device);
    const next = new RngDevice(rng.loop, { rateLimit: { bytes: 100, periodMs: LONG_MS } });
    loadDevice(next, state);
    rng.queue.moveTo(next);
    expect(rng.queue.run([{ room: 70 }]).writtenBytes).toBe(30);
    rng.queue.add([{ room: 70 }]);
    rng.queue.kick();
    expect(rng.queue.take()).toBeUndefined();
    rng.queue.moveTo(new RngDevice(rng.loop));
    expect(rng.queue.take()?.writtenBytes).toBe(70);
  });

  test("of something else is refused, and changes nothing", () => {
    using rng = setUp({ bytes: 100, periodMs: LONG_MS });
    const header = { deviceType: "rng", version: 1, oldestCompatibleVersion: 1, features: 0n };
    const bad = Buffer.concat([
      ...encodeState(header, [{ name: "state", value: { usedBytes: -1, leftMs: 0 } }]),
    ]);
    expect(() => loadDevice(rng.device, bad)).toThrow(FormatError);
    expect(() => loadDevice(rng.device, saveDevice(rng.device, { deviceType: "blk" }))).toThrow(
      CompatibilityError,
    );
    expect(rng.queue.run([{ room: 100 }]).writtenBytes).toBe(100);
  });
});
