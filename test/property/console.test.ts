import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  BufferEnd,
  ConsoleDevice,
  consoleFeature,
  controlEvent,
  encodeControlMessage,
} from "../../devices/console/mod.ts";
import { loadDevice, saveDevice } from "../support/device-state.ts";
import { DrivenMemory, DrivenQueue } from "../support/driven-queue.ts";

const PORT_COUNT = 3;
const MAX_BYTES = 60_000;

/** Far more than what all operations together put under way can need. */
const MAX_TURNS = 1000;

const port = fc.nat({ max: PORT_COUNT - 1 });
const sizeBytes = fc.integer({ min: 1, max: MAX_BYTES });
const operation = fc.oneof(
  fc.record({
    kind: fc.constantFrom("guestWrites", "hostSends", "guestReads", "hostTakes"),
    port,
    sizeBytes,
  }),
  fc.record({
    kind: fc.constantFrom("open", "close", "migrate", "stopAndGo"),
    port,
    sizeBytes: fc.constant(0),
  }),
);

/** A device with its ends; the guest's queues move from one to the next. */
function newConsole() {
  const ends = Array.from({ length: PORT_COUNT }, () => new BufferEnd());
  const device = new ConsoleDevice(ends.map((end, id) => ({ end, name: `p${id}` })));
  device.ackFeatures(consoleFeature.MULTIPORT);
  for (const end of ends) end.limitTo(0);
  return { ends, device };
}

/** One port as both sides see it: what went in, and what came out, in order. */
class Ledger {
  readonly toHost = { sent: [] as number[], come: [] as number[] };
  readonly toGuest = { sent: [] as number[], come: [] as number[] };
  #next = 0;

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => (this.#next++ * 31 + (this.#next >> 8)) & 0xff);
  }
}

function append(list: number[], bytes: Uint8Array): void {
  for (const byte of bytes) list.push(byte);
}

class World implements Disposable {
  readonly driven = new DrivenMemory(64 << 20);
  readonly ledgers = Array.from({ length: PORT_COUNT }, () => new Ledger());
  current = newConsole();
  readonly queues = Array.from(
    { length: this.current.device.maxQueues },
    (_, index) => new DrivenQueue(this.driven, this.current.device, index),
  );

  control(id: number, event: number, value = 1): void {
    this.queues[3]!.run([{ out: encodeControlMessage({ port: id, event, value }) }]);
  }

  guestWrites(id: number, count: number): void {
    const queue = this.#queue(id, 1);
    while (queue.take() !== undefined);
    if (queue.driver.outstanding > 8) return;
    const ledger = this.ledgers[id]!;
    const bytes = ledger.bytes(count);
    append(ledger.toHost.sent, bytes);
    queue.add([{ out: bytes }]);
    queue.kick();
  }

  hostSends(id: number, count: number): void {
    const ledger = this.ledgers[id]!;
    const bytes = ledger.bytes(count);
    append(ledger.toGuest.sent, bytes);
    this.current.ends[id]!.send(bytes);
  }

  guestReads(id: number, count: number): void {
    const queue = this.#queue(id, 0);
    if (queue.driver.outstanding === 0) queue.add([{ room: count }]);
    queue.kick();
    this.#drainReceived(id);
  }

  hostTakes(id: number, count: number): void {
    const end = this.current.ends[id]!;
    end.limitTo(count);
    end.limitTo(0);
    append(this.ledgers[id]!.toHost.come, end.takeOutput());
  }

  migrate(): void {
    const old = this.current;
    for (const queue of this.queues) queue.stop();
    const state = saveDevice(old.device);
    for (const id of this.ledgers.keys()) this.#drainReceived(id);
    this.current = newConsole();
    loadDevice(this.current.device, state);
    // What the state could not take is with the host, which sends it again to the new end.
    for (const [id, end] of old.ends.entries()) this.current.ends[id]!.send(end.takeUnread());
    for (const queue of this.queues) queue.moveTo(this.current.device);
    old.device[Symbol.dispose]();
  }

  stopAndGo(): void {
    for (const queue of this.queues) queue.stop();
    for (const queue of this.queues) queue.start();
  }

  /** Lets everything arrive. */
  settle(): void {
    for (const [id, { toGuest, toHost }] of this.ledgers.entries()) {
      this.control(id, controlEvent.PORT_OPEN);
      const isDone = ({ come, sent }: typeof toHost) => come.length >= sent.length;
      for (let turn = 0; turn < MAX_TURNS && !(isDone(toHost) && isDone(toGuest)); turn++) {
        this.hostTakes(id, 1 << 20);
        this.hostSends(id, 0);
        this.guestReads(id, 1 << 16);
      }
    }
  }

  [Symbol.dispose](): void {
    for (const queue of this.queues) queue[Symbol.dispose]();
    this.current.device[Symbol.dispose]();
    this.driven[Symbol.dispose]();
  }

  #queue(id: number, direction: 0 | 1): DrivenQueue {
    return this.queues[(id === 0 ? 0 : 2 * id + 2) + direction]!;
  }

  #drainReceived(id: number): void {
    const queue = this.#queue(id, 0);
    for (let used = queue.take(); used !== undefined; used = queue.take()) {
      append(this.ledgers[id]!.toGuest.come, used.written.subarray(0, used.writtenBytes));
    }
  }
}

test("whatever happens, every byte of every port arrives once and in order", () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 30 }), (operations) => {
      using world = new World();
      world.control(0, controlEvent.DEVICE_READY);
      for (const { kind, port: id, sizeBytes: count } of operations) {
        if (kind === "open") world.control(id, controlEvent.PORT_OPEN);
        else if (kind === "close") world.control(id, controlEvent.PORT_OPEN, 0);
        else if (kind === "migrate") world.migrate();
        else if (kind === "stopAndGo") world.stopAndGo();
        else world[kind as "guestWrites"](id, count);
      }
      world.settle();
      for (const { toHost, toGuest } of world.ledgers) {
        for (const { sent, come } of [toHost, toGuest]) {
          expect(Buffer.compare(Buffer.from(come), Buffer.from(sent))).toBe(0);
        }
      }
    }),
    { numRuns: 200 },
  );
}, 60_000);
