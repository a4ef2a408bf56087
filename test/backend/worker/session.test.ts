import { describe, expect, test } from "bun:test";
import { WorkerRings } from "../../../src/backend/mod.ts";
import {
  createMemfd,
  Deadline,
  drainEvent,
  EventLoop,
  Mapping,
  POLL,
  signalEvent,
  waitReadySync,
} from "../../../src/sys/mod.ts";
import { virtioFeature } from "../../../src/wire/mod.ts";
import { BackendRig, REGION_BYTES, type RigRing, USER_BASE } from "../../support/backend-rig.ts";
import { TestDevice } from "../../support/test-device.ts";

const PROGRAM = new URL("../../support/ring-programs/echo-program.ts", import.meta.url);
const TIMEOUT_MS = 20_000;

/** The test device with its queues in Workers. */
class WorkerDevice extends TestDevice {
  readonly ringProgram = PROGRAM;
  startQueueInWorker(index: number): unknown {
    this.calls.push(`start ${index}`);
    return {};
  }
}

/** Two Workers, and the loop on which they report. */
class Pool implements Disposable {
  readonly loop = new EventLoop();
  readonly workers = new WorkerRings(this.loop, PROGRAM, { workers: 2, timeoutMs: TIMEOUT_MS });

  connect(): BackendRig {
    const rig = new BackendRig({ device: new WorkerDevice(4, 0xffn), ringWorkers: this.workers });
    const protocol = ["REPLY_ACK", "CONFIG", "MQ", "LOG_SHMFD", "CONFIGURE_MEM_SLOTS"] as const;
    return rig.negotiate(protocol);
  }

  [Symbol.dispose](): void {
    this.workers[Symbol.dispose]();
    this.loop[Symbol.dispose]();
  }
}

function waitForEcho(ring: RigRing): string {
  const deadline = new Deadline(TIMEOUT_MS);
  for (;;) {
    const [echo] = ring.take();
    if (echo !== undefined) return new TextDecoder().decode(echo);
    if (deadline.expired) return "nothing came back";
  }
}

function echo(ring: RigRing, text: string): string {
  ring.add(new TextEncoder().encode(text));
  signalEvent(ring.kick);
  return waitForEcho(ring);
}

describe("a session whose rings run in Workers", () => {
  test("starts, serves, stops at its base, and starts again, on two queues at once", () => {
    using pool = new Pool();
    using rig = pool.connect();
    const [first, second] = [rig.shareMemory().ring(0).start(), rig.ring(1).start()];
    for (let i = 0; i < 20; i++) {
      expect(echo(first, `first ${i}`)).toBe(`first ${i}`);
      expect(echo(second, `second ${i}`)).toBe(`second ${i}`);
    }
    expect(first.stop()).toBe(20);
    expect(echo(second, "still there")).toBe("still there");
    first.add(new TextEncoder().encode("while it was stopped"));
    first.start(20);
    expect(waitForEcho(first)).toBe("while it was stopped");
    expect(rig.device.calls).toEqual(["start 0", "start 1", "stop 0", "start 0"]);
  });

  test("a disabled ring rests; a new call fd is used at once", () => {
    using pool = new Pool();
    using rig = pool.connect();
    const ring = rig.shareMemory().ring().start(0, false);
    ring.add(new TextEncoder().encode("early"));
    signalEvent(ring.kick);
    rig.client.getFeatures();
    expect(ring.take()).toEqual([]);
    rig.client.setVringEnable(0, true);
    expect(waitForEcho(ring)).toBe("early");
    const call = rig.event("second call");
    rig.client.setVringCall(0, call);
    // Echoes are used before the call is signalled, so the old one may still be on its way.
    expect(echo(ring, "called")).toBe("called");
    expect(waitReadySync(call, POLL.IN, new Deadline(TIMEOUT_MS))).toBe(POLL.IN);
    expect(drainEvent(call)).toBe(true);
  });

  test("memory is added and replaced beneath a running ring", () => {
    using pool = new Pool();
    using rig = pool.connect();
    const ring = rig.shareMemory().ring().start();
    expect(echo(ring, "before")).toBe("before");
    rig.client.addMemReg(rig.region(REGION_BYTES));
    expect(echo(ring, "added")).toBe("added");
    rig.client.setMemTable(rig.regions);
    expect(echo(ring, "replaced")).toBe("replaced");
    expect(ring.stop()).toBe(3);
  });

  test("a log that comes while the ring runs is written from F_LOG_ALL on", () => {
    using pool = new Pool();
    using rig = pool.connect();
    using file = createMemfd("log", 4096);
    const ring = rig.shareMemory().ring().start();
    rig.client.setLogBase({ sizeBytes: 4096, offset: 0 }, file);
    const features = virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1;
    rig.client.setFeatures(features | virtioFeature.LOG_ALL);
    ring.setAddress(1);
    expect(echo(ring, "logged")).toBe("logged");
    ring.stop();
    using mapping = Mapping.ofFd(file, { sizeBytes: 4096 });
    const bits = new Uint8Array(mapping.window(0, 4096));
    const isDirty = (address: number) => (bits[(address / 4096) >> 3]! & (1 << ((address / 4096) & 7))) !== 0;
    expect([isDirty(ring.layout.used), isDirty(0x80000)]).toEqual([true, true]);
    expect(isDirty(ring.layout.descriptor)).toBe(false);
  });

  test("a broken ring is reported on its error fd, and starts again after a stop", () => {
    using pool = new Pool();
    using rig = pool.connect();
    const ring = rig.shareMemory().ring().start();
    const err = rig.event("err");
    rig.client.setVringErr(0, err);
    // An available index that is far ahead.
    rig.memory.write(ring.layout.available + 2, Uint8Array.of(0xff, 0x7f));
    signalEvent(ring.kick);
    const deadline = new Deadline(TIMEOUT_MS);
    while (!drainEvent(err)) {
      expect(deadline.expired).toBe(false);
      pool.loop.runOnce(10);
    }
    expect(rig.log.lines.some(({ message }) => message.includes("out of service"))).toBe(true);
    expect(ring.stop()).toBe(0);
    rig.memory.write(ring.layout.available + 2, Uint8Array.of(0, 0));
    ring.start();
    expect(echo(ring, "again")).toBe("again");
  });

  test("a ring that lies outside memory is refused, and nothing of it stays", () => {
    using pool = new Pool();
    using rig = pool.connect();
    const ring = rig.shareMemory().ring().configure();
    rig.client.setVringAddr({
      index: 0,
      flags: 0,
      descriptor: USER_BASE,
      available: USER_BASE + 0x1000,
      used: USER_BASE + REGION_BYTES - 4,
      log: 0,
    });
    expect(rig.refusal(() => rig.client.setVringKick(0, ring.kick))).toContain("not wholly inside");
    expect(rig.device.calls).toEqual(["start 0", "stop 0", "suspend"]);
    ring.start();
    expect(echo(ring, "well")).toBe("well");
  });

  test("the front-end goes while the ring runs, and the next one is served", () => {
    using pool = new Pool();
    {
      using rig = pool.connect();
      expect(echo(rig.shareMemory().ring().start(), "one")).toBe("one");
    }
    using rig = pool.connect();
    expect(echo(rig.shareMemory().ring().start(), "two")).toBe("two");
  });
});
