import { describe, expect, test } from "bun:test";
import { type WorkerRingStart, WorkerRings, type WorkerRingsOptions } from "../../../src/backend/mod.ts";
import type { VhuError } from "../../../src/errors.ts";
import { DirtyLog } from "../../../src/memory/mod.ts";
import {
  createEventFd,
  createMemfd,
  Deadline,
  drainEvent,
  EventLoop,
  Mapping,
  signalEvent,
} from "../../../src/sys/mod.ts";
import { type DriverRing, InflightRegion } from "../../../src/vring/mod.ts";
import type { EchoParameters } from "../../support/ring-programs/echo-program.ts";
import { BUFFERS, KINDS, type Kind, RingFixture } from "../../vring/ring-fixture.ts";

const PROGRAM = new URL("../../support/ring-programs/echo-program.ts", import.meta.url);
const TIMEOUT_MS = 20_000;

/** A ring in a Worker, its driver in the test. */
class Rig implements Disposable {
  readonly #stack = new DisposableStack();
  readonly loop = this.#stack.use(new EventLoop());
  readonly fixture: RingFixture;
  readonly rings: WorkerRings;
  readonly driver: DriverRing<number>;
  readonly kick = this.#stack.use(createEventFd("kick"));
  readonly call = this.#stack.use(createEventFd("call"));
  readonly errors: VhuError[] = [];
  #next = 0;

  constructor(
    kind: Partial<Kind> & { size?: number; logAddress?: number } = {},
    options: WorkerRingsOptions = {},
  ) {
    this.fixture = this.#stack.use(new RingFixture(kind));
    this.driver = this.#stack.use(this.fixture.driver());
    this.rings = this.#stack.use(new WorkerRings(this.loop, PROGRAM, { timeoutMs: TIMEOUT_MS, ...options }));
    this.rings.setMemory(this.fixture.memory);
    this.#stack.defer(() => this.rings.releaseMemory());
    this.#stack.defer(() => {
      if (this.rings.has(0)) this.rings.stop(0, "skip");
    });
  }

  start(start: Partial<WorkerRingStart> & { base?: number } = {}): void {
    const { base = this.fixture.layout.base, ...rest } = start;
    this.rings.start({
      index: 0,
      layout: { ...this.fixture.layout, base },
      inflight: undefined,
      kick: this.kick,
      call: this.call,
      polled: false,
      enabled: true,
      parameters: {} satisfies EchoParameters,
      onError: (error) => this.errors.push(error),
      ...rest,
    });
  }

  /** Adds an echo request of 4 bytes that tell its number; kicks if the device wants it. */
  add(kick = true): boolean {
    const number = this.#next;
    const readable = BUFFERS + (number % 64) * 64;
    this.fixture.memory.write(readable, new Uint8Array(Uint32Array.of(number).buffer));
    const pieces = [
      { guestAddress: readable, sizeBytes: 4, writable: false },
      { guestAddress: readable + 32, sizeBytes: 8, writable: true },
    ];
    if (!this.driver.add(pieces, number)) return false;
    this.#next++;
    if (kick && this.driver.kickNeeded()) signalEvent(this.kick);
    return true;
  }

  /** Waits for `count` completions, in any order, and checks each. Sleeps on the call fd unless `spins`. */
  take(count: number): number[] {
    const taken: number[] = [];
    const deadline = new Deadline(TIMEOUT_MS);
    while (taken.length < count) {
      const used = this.driver.popUsed();
      if (used === undefined) {
        if (deadline.expired) throw new Error(`${taken.length} of ${count} came back`);
        drainEvent(this.call);
        continue;
      }
      const back = new Uint8Array(4);
      this.fixture.memory.read(BUFFERS + (used.token % 64) * 64 + 32, back);
      expect([used.writtenBytes, new Uint32Array(back.buffer)[0]]).toEqual([4, used.token]);
      taken.push(used.token);
    }
    return taken;
  }

  [Symbol.dispose](): void {
    this.#stack[Symbol.dispose]();
  }
}

/** What has the echo program hold its chains. */
function holding(): { hold: SharedArrayBuffer; words: Int32Array } {
  const words = new Int32Array(new SharedArrayBuffer(8));
  Atomics.store(words, 0, 1);
  return { hold: words.buffer as SharedArrayBuffer, words };
}

function waitForHeld(words: Int32Array, count: number): void {
  const deadline = new Deadline(TIMEOUT_MS);
  while (Atomics.load(words, 1) !== count) if (deadline.expired) throw new Error("the chains were not taken");
}

describe("a ring in a Worker", () => {
  for (const spinUs of [0, 100]) {
    for (const { name, ...kind } of KINDS) {
      test(`serves kicks, one by one and in batches (${name}, spin ${spinUs} us)`, () => {
        using rig = new Rig({ ...kind, size: 16 }, { spinUs });
        rig.start();
        for (let i = 0; i < 200; i++) {
          expect(rig.add()).toBe(true);
          expect(rig.take(1)).toEqual([i]);
        }
        let taken = 200;
        for (let i = 0; i < 50; i++) {
          let batch = 0;
          while (rig.add(false)) batch++;
          if (rig.driver.kickNeeded()) signalEvent(rig.kick);
          expect(rig.take(batch)).toEqual(Array.from({ length: batch }, (_, n) => taken + n));
          taken += batch;
        }
        expect(rig.rings.stop(0, { timeoutMs: TIMEOUT_MS })).toEqual(
          kind.packed ? expect.any(Number) : taken,
        );
      }, 60_000);
    }
  }

  test("goes on where it was stopped, and what was added meanwhile needs no kick", () => {
    using rig = new Rig({ size: 16 });
    rig.start();
    rig.add();
    rig.take(1);
    const base = rig.rings.stop(0, { timeoutMs: TIMEOUT_MS });
    expect(base).toBe(1);
    rig.add(false);
    rig.start({ base });
    expect(rig.take(1)).toEqual([1]);
  });

  test("a stop waits for what is in flight, up to its deadline", () => {
    using rig = new Rig({ size: 16 });
    const { hold, words } = holding();
    rig.start({ parameters: { hold } });
    rig.add();
    waitForHeld(words, 1);
    expect(() => rig.rings.stop(0, { timeoutMs: 50 })).toThrow("did not drain");
    expect(rig.rings.has(0)).toBe(false);
    Atomics.store(words, 1, 0);
    rig.start({ parameters: { hold } });
    waitForHeld(words, 1);
    Atomics.store(words, 0, 0);
    expect(rig.rings.stop(0, { timeoutMs: TIMEOUT_MS })).toBe(1);
    rig.take(1);
  });

  test("a disabled ring rests, and an enabled one serves what came meanwhile", () => {
    using rig = new Rig({ size: 16 });
    rig.start({ enabled: false });
    rig.add();
    rig.rings.setEnabled(0, true);
    rig.take(1);
    rig.rings.setEnabled(0, false);
    rig.add();
    // An order is answered between two polls, so the ring would have been looked at before this one is.
    rig.rings.setLogging(false);
    expect(rig.driver.popUsed()).toBeUndefined();
    rig.rings.setEnabled(0, true);
    rig.take(1);
  });

  test("without a kick fd it is polled, or kicked in-band; without a call fd the control thread is told", () => {
    using rig = new Rig({ size: 16 });
    rig.start({ kick: undefined, polled: true });
    rig.add(false);
    rig.take(1);
    const base = rig.rings.stop(0, { timeoutMs: TIMEOUT_MS });
    let calls = 0;
    rig.start({ base, kick: undefined, call: () => calls++ });
    rig.add(false);
    rig.rings.kick(0);
    rig.take(1);
    while (calls === 0) rig.loop.runOnce(TIMEOUT_MS);
    expect(calls).toBe(1);
    rig.rings.setCall(0, rig.call);
    rig.add(false);
    rig.rings.kick(0);
    rig.take(1);
  });

  test("a driver that breaks a rule takes its ring out of service, until it is started again", () => {
    using rig = new Rig({ size: 16 });
    rig.start();
    rig.fixture.setDescriptor(0, 2 ** 40, 4, 0);
    rig.fixture.offer(0);
    signalEvent(rig.kick);
    while (rig.errors.length === 0) rig.loop.runOnce(TIMEOUT_MS);
    expect(rig.errors[0]?.message).toContain("outside guest memory");
    expect(rig.rings.stop(0, { timeoutMs: TIMEOUT_MS })).toBe(0);
  });

  test("marks what it writes in the dirty log, its used ring while F_LOG_ALL is set", () => {
    using rig = new Rig({ size: 16, logAddress: 0x20 * 4096 });
    using file = createMemfd("log", 4096);
    using log = DirtyLog.fromFd(file.duplicate(), { sizeBytes: 64, offset: 0 });
    rig.fixture.memory.dirtyLog = log;
    rig.rings.setMemory(rig.fixture.memory);
    // What the driver writes is not to be seen in it.
    rig.fixture.memory.dirtyLog = undefined;
    using mapping = Mapping.ofFd(file, { sizeBytes: 4096 });
    const bits = new Uint8Array(mapping.window(0, 64));
    rig.start();
    rig.add();
    rig.take(1);
    expect([bits[4], bits[BUFFERS / 4096 / 8]]).toEqual([0, 1]);
    rig.rings.setLogging(true);
    rig.add();
    rig.take(1);
    expect([bits[4], bits.filter((byte) => byte !== 0).length]).toEqual([1, 2]);
    rig.rings.stop(0, { timeoutMs: TIMEOUT_MS });
    rig.rings.releaseMemory();
  });

  test("a ring that cannot be opened, is refused and leaves nothing", () => {
    using rig = new Rig({ size: 16 });
    expect(() => rig.start({ layout: { ...rig.fixture.layout, used: 3 } })).toThrow("multiple of 4");
    expect(rig.rings.has(0)).toBe(false);
    rig.start();
    rig.add();
    rig.take(1);
  });

  test("keeps the inflight region, from which another start resubmits", () => {
    using rig = new Rig({ size: 16 });
    const place = InflightRegion.create({ numQueues: 1, queueSize: 16, packed: false });
    using region = InflightRegion.open(place.fd, { ...place, numQueues: 1, queueSize: 16, packed: false });
    const { hold, words } = holding();
    rig.start({ inflight: region.shareQueue(0), parameters: { hold } });
    for (let i = 0; i < 5; i++) rig.add();
    waitForHeld(words, 5);
    expect(() => rig.rings.stop(0, { timeoutMs: 50 })).toThrow("did not drain");
    // As after a crash: the base is what the used ring says.
    rig.start({ base: 0, inflight: region.shareQueue(0), parameters: {} });
    expect(rig.take(5)).toEqual([0, 1, 2, 3, 4]);
  });

  test("changes of memory reach a running ring", () => {
    using rig = new Rig({ size: 16 });
    rig.start();
    rig.add();
    rig.take(1);
    const layout = { guestAddress: 0x10000000, sizeBytes: 8192, userAddress: 0x7e0000000000, mmapOffset: 0 };
    rig.fixture.memory.addRegion(layout, createMemfd("second", 8192));
    rig.rings.setMemory(rig.fixture.memory);
    rig.fixture.memory.write(layout.guestAddress, Uint8Array.of(1, 2, 3));
    rig.driver.add(
      [
        { guestAddress: layout.guestAddress, sizeBytes: 3, writable: false },
        { guestAddress: layout.guestAddress + 4096, sizeBytes: 3, writable: true },
      ],
      7,
    );
    signalEvent(rig.kick);
    const deadline = new Deadline(TIMEOUT_MS);
    while (rig.driver.popUsed() === undefined) expect(deadline.expired).toBe(false);
    const back = new Uint8Array(3);
    rig.fixture.memory.read(layout.guestAddress + 4096, back);
    expect([...back]).toEqual([1, 2, 3]);
  });
});
