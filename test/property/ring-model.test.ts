import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Chain, type DeviceRing, type DriverPiece, type DriverRing } from "../../src/vring/mod.ts";
import { BUFFERS, describeChain, KINDS, type Kind, MAX_PIECES, RingFixture } from "../vring/ring-fixture.ts";

/** What a driver and a device may do, in any order. */
type Step =
  | { do: "add"; readable: number; writable: number; seed: number }
  | { do: "pop" | "publish" | "collect" | "deviceSleep" | "driverSleep" | "deviceRestart" | "driverRestart" }
  | { do: "complete"; which: number; written: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("add" as const),
      readable: fc.integer({ min: 0, max: 2 }),
      writable: fc.integer({ min: 0, max: 2 }),
      seed: fc.nat(1000),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("pop" as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant("complete" as const), which: fc.nat(100), written: fc.nat(1000) }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("publish" as const, "collect" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("deviceSleep" as const, "driverSleep" as const) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom("deviceRestart" as const, "driverRestart" as const) }),
  },
);

interface Request {
  readonly token: number;
  readonly pieces: DriverPiece[];
}

/** Both sides of a real ring beside four plain lists, which say what must be where. */
class Model implements Disposable {
  readonly #fixture: RingFixture;
  #driver: DriverRing<number>;
  #device: DeviceRing;
  readonly #available: Request[] = [];
  readonly #inFlight: { request: Request; chain: Chain }[] = [];
  readonly #completed: { token: number; writtenBytes: number }[] = [];
  readonly #published: { token: number; writtenBytes: number }[] = [];
  #nextToken = 0;
  #deviceAwake = true;
  #driverAwake = true;

  constructor(kind: Kind, size: number) {
    this.#fixture = new RingFixture({ ...kind, size });
    this.#driver = this.#fixture.driver();
    this.#device = this.#fixture.device();
  }

  run(step: Step): void {
    if (step.do === "add") this.#add(step.readable, step.writable, step.seed);
    else if (step.do === "complete") this.#complete(step.which, step.written);
    else if (step.do === "pop") this.#pop();
    else if (step.do === "publish") this.#publish();
    else if (step.do === "collect") this.#collect();
    else if (step.do === "deviceSleep") this.#deviceAwake = this.#device.enableNotifications();
    else if (step.do === "driverSleep") this.#driverAwake = this.#driver.enableInterrupts();
    else if (step.do === "deviceRestart") this.#restartDevice();
    else this.#restartDriver();
    this.#checkInvariants();
  }

  /** Everything that was offered comes back. */
  finish(): void {
    this.#deviceAwake = true;
    this.#driverAwake = true;
    while (this.#available.length > 0) this.#pop();
    while (this.#inFlight.length > 0) this.#complete(0, 0);
    this.#publish();
    this.#collect();
    this.#checkInvariants();
    expect(this.#driver.freeDescriptors).toBe(this.#driver.size);
    expect(this.#published).toEqual([]);
  }

  [Symbol.dispose](): void {
    this.#driver[Symbol.dispose]();
    this.#device[Symbol.dispose]();
    this.#fixture[Symbol.dispose]();
  }

  #add(readable: number, writable: number, seed: number): void {
    const count = Math.min(readable + writable, MAX_PIECES);
    if (count === 0) return;
    const pieces = Array.from({ length: count }, (_, i) => ({
      guestAddress: BUFFERS + ((seed * 37 + i * 4096) % 0x80000),
      sizeBytes: 1 + ((seed * 13 + i) % 4000),
      writable: i >= readable,
    }));
    const needed = this.#fixture.layout.indirect && count > 1 ? 1 : count;
    const fits = this.#driver.freeDescriptors >= needed;
    const token = this.#nextToken++;
    expect(this.#driver.add(pieces, token)).toBe(fits);
    if (fits) this.#available.push({ token, pieces });
    if (this.#driver.kickNeeded()) this.#deviceAwake = true;
  }

  #pop(): void {
    if (!this.#deviceAwake) return;
    const chain = new Chain();
    const request = this.#available.shift();
    expect(this.#device.pop(chain)).toBe(request !== undefined);
    if (request === undefined) return;
    expect(describeChain(chain)).toEqual(
      request.pieces.map((piece) => ({
        address: piece.guestAddress,
        length: piece.sizeBytes,
        writable: piece.writable,
      })),
    );
    this.#inFlight.push({ request, chain });
  }

  #complete(which: number, written: number): void {
    if (this.#inFlight.length === 0) return;
    const [one] = this.#inFlight.splice(which % this.#inFlight.length, 1);
    const writtenBytes = Math.min(written, one!.chain.writableBytes);
    this.#device.complete(one!.chain, writtenBytes);
    this.#completed.push({ token: one!.request.token, writtenBytes });
  }

  #publish(): void {
    if (this.#device.publish()) this.#driverAwake = true;
    this.#published.push(...this.#completed.splice(0));
  }

  #collect(): void {
    if (!this.#driverAwake) return;
    for (;;) {
      const expected = this.#published.shift();
      expect(this.#driver.popUsed()).toEqual(expected as never);
      if (expected === undefined) return;
    }
  }

  #restartDevice(): void {
    while (this.#inFlight.length > 0) this.#complete(0, 0);
    this.#publish();
    const { base } = this.#device;
    this.#device[Symbol.dispose]();
    this.#device = this.#fixture.device({ base });
    // Whoever starts a ring kicks it, and signals the driver once.
    this.#deviceAwake = true;
    this.#driverAwake = true;
  }

  #restartDriver(): void {
    const state = JSON.parse(JSON.stringify(this.#driver.exportState()));
    this.#driver[Symbol.dispose]();
    this.#driver = this.#fixture.driver(state);
    this.#deviceAwake = true;
    this.#driverAwake = true;
  }

  #checkInvariants(): void {
    expect(this.#device.inFlight).toBe(this.#inFlight.length);
    const outside = this.#available.length + this.#inFlight.length + this.#completed.length;
    expect(this.#driver.outstanding).toBe(outside + this.#published.length);
    // A side that sleeps has been promised a notification: nothing may wait for it.
    if (!this.#deviceAwake) expect(this.#available, "the device sleeps over a request").toEqual([]);
    if (!this.#driverAwake) expect(this.#published, "the driver sleeps over an answer").toEqual([]);
  }
}

describe("driver and device agree with a simple model", () => {
  for (const { name, ...kind } of KINDS) {
    test(name, () => {
      const size = kind.packed ? fc.constantFrom(1, 2, 3, 4, 5, 7, 8) : fc.constantFrom(1, 2, 4, 8);
      fc.assert(
        fc.property(size, fc.array(step, { maxLength: 150, size: "max" }), (ringSize, steps) => {
          using model = new Model(kind, ringSize);
          for (const one of steps) model.run(one);
          model.finish();
        }),
        { numRuns: 150 },
      );
    }, 60_000);
  }
});
