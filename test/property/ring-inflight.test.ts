import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Fd } from "../../src/sys/mod.ts";
import { Chain, type DeviceRing, type DriverRing, InflightRegion } from "../../src/vring/mod.ts";
import { cutOff } from "../vring/cut-off.ts";
import { BUFFERS, KINDS, type Kind, RingFixture } from "../vring/ring-fixture.ts";

type Step =
  | { do: "add"; pieces: number }
  | { do: "pop" | "publish" | "collect"; killAfterStores: number | undefined }
  | { do: "complete"; which: number; killAfterStores: number | undefined };

// A kill lands between two of the atomic stores of an operation, or (0) before it.
const kill = fc.oneof(
  { weight: 9, arbitrary: fc.constant(undefined) },
  { weight: 1, arbitrary: fc.nat({ max: 12 }) },
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("add" as const), pieces: fc.integer({ min: 1, max: 3 }) }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("pop" as const), killAfterStores: kill }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("complete" as const), which: fc.nat(100), killAfterStores: kill }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom("publish" as const, "collect" as const),
      killAfterStores: kill,
    }),
  },
);

/** A driver that lives on while its device is killed again and again. */
class Survivor implements Disposable {
  readonly #fixture: RingFixture;
  readonly #driver: DriverRing<number>;
  readonly #place: { fd: Fd; sizeBytes: number; mmapOffset: number };
  readonly #size: number;
  #region: InflightRegion;
  #device: DeviceRing;
  /** Tokens that the driver has not got back, in the order in which it offered them. */
  #unanswered: number[] = [];
  /** How many of them this life of the device has popped, and which of these it has completed. */
  #popped: { token: number; chain: Chain }[] = [];
  #order: number[] = [];
  #nextToken = 0;

  constructor(kind: Kind, size: number) {
    this.#size = size;
    this.#fixture = new RingFixture({ ...kind, size });
    this.#driver = this.#fixture.driver();
    this.#place = InflightRegion.create({ numQueues: 1, queueSize: size, packed: kind.packed });
    this.#region = this.#openRegion();
    this.#device = this.#fixture.device({ inflight: this.#region.queue(0) });
  }

  run(step: Step): void {
    if (step.do === "add") {
      this.#add(step.pieces);
      return;
    }
    const operations = {
      pop: () => this.#pop(),
      publish: () => void this.#device.publish(),
      collect: () => this.#collect(),
      complete: () => this.#complete(step.do === "complete" ? step.which : 0),
    };
    if (!cutOff(step.killAfterStores, operations[step.do])) this.#restart();
  }

  finish(): void {
    this.#restart();
    while (this.#order.length > 0) this.#pop();
    expect(this.#device.pop(new Chain()), "nothing more than was offered").toBe(false);
    while (this.#popped.length > 0) this.#complete(0);
    this.#device.publish();
    this.#collect();
    expect(this.#unanswered).toEqual([]);
    expect(this.#driver.freeDescriptors).toBe(this.#size);
  }

  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
    this.#region[Symbol.dispose]();
    this.#driver[Symbol.dispose]();
    this.#place.fd[Symbol.dispose]();
    this.#fixture[Symbol.dispose]();
  }

  #add(pieces: number): void {
    const token = this.#nextToken++;
    // The address tells the request: the device sees nothing else of it.
    const chain = Array.from({ length: pieces }, (_, i) => ({
      guestAddress: BUFFERS + (token % 0x8000) * 4 + i,
      sizeBytes: 1,
      writable: true,
    }));
    if (!this.#driver.add(chain, token)) return;
    this.#unanswered.push(token);
    this.#order.push(token);
  }

  #pop(): void {
    const chain = new Chain();
    const popped = this.#device.pop(chain);
    const token = this.#order.shift();
    expect(popped).toBe(token !== undefined);
    if (token === undefined) return;
    expect(chain.guestAddresses[0], "in the order in which they were offered").toBe(
      BUFFERS + (token % 0x8000) * 4,
    );
    this.#popped.push({ token, chain });
  }

  #complete(which: number): void {
    if (this.#popped.length === 0) return;
    const [one] = this.#popped.splice(which % this.#popped.length, 1);
    this.#device.complete(one!.chain, 1);
  }

  #collect(): void {
    for (let used = this.#driver.popUsed(); used !== undefined; used = this.#driver.popUsed()) {
      const index = this.#unanswered.indexOf(used.token);
      expect(index, "answered once").toBeGreaterThanOrEqual(0);
      this.#unanswered.splice(index, 1);
    }
  }

  #restart(): void {
    this.#device[Symbol.dispose]();
    this.#region[Symbol.dispose]();
    this.#region = this.#openRegion();
    const { packed, base } = this.#fixture.layout;
    // As QEMU does it: a split ring's base is its used index, a packed ring's is the one it started with.
    const known = packed ? base : this.#fixture.half(this.#fixture.usedAddress + 2);
    this.#device = this.#fixture.device({ inflight: this.#region.queue(0), base: known });
    this.#popped = [];
    this.#collect();
    // Exactly what the driver has no answer for must come again, in its order.
    this.#order = [...this.#unanswered];
  }

  #openRegion(): InflightRegion {
    return InflightRegion.open(this.#place.fd.duplicate(), {
      numQueues: 1,
      queueSize: this.#size,
      packed: this.#fixture.layout.packed,
      sizeBytes: this.#place.sizeBytes,
      mmapOffset: this.#place.mmapOffset,
    });
  }
}

describe("a device that is killed at any store loses nothing, answers nothing twice and keeps the order", () => {
  for (const { name, ...kind } of KINDS.filter((one) => !one.eventIdx)) {
    test(name, () => {
      const size = kind.packed ? fc.constantFrom(1, 2, 3, 4, 7, 8) : fc.constantFrom(1, 2, 4, 8);
      fc.assert(
        fc.property(size, fc.array(step, { maxLength: 120, size: "max" }), (ringSize, steps) => {
          using survivor = new Survivor(kind, ringSize);
          for (const one of steps) survivor.run(one);
          survivor.finish();
        }),
        { numRuns: 300 },
      );
    }, 60_000);
  }
});
