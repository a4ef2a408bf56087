import { expect, test } from "bun:test";
import { FramesWorkload } from "../../../migrate/machine/frames-workload.ts";
import type { MachineDevice } from "../../../migrate/machine/machine-device.ts";
import { MachineMemory } from "../../../migrate/machine/machine-memory.ts";
import { MachineQueue } from "../../../migrate/machine/machine-queue.ts";
import { RandomWorkload } from "../../../migrate/machine/random-workload.ts";
import { EventLoop } from "../../../src/sys/mod.ts";
import { Chain, createDeviceRing, type DeviceRing } from "../../../src/vring/mod.ts";

const HEADER_BYTES = 12;
const SIZE = 64;

/** The device's side of a machine's queues, by hand. */
class ByHand implements Disposable {
  readonly #stack = new DisposableStack();
  readonly loop = this.#stack.use(new EventLoop());
  readonly memory = this.#stack.use(new MachineMemory(4 << 20));
  readonly queues: readonly MachineQueue[];
  readonly rings: readonly DeviceRing[];
  readonly device: MachineDevice;

  constructor(queueCount: number) {
    this.queues = Array.from({ length: queueCount }, (_, index) =>
      this.#stack.use(new MachineQueue(index, SIZE, this.memory, { eventIdx: false })),
    );
    const { guest } = this.memory;
    this.rings = this.queues.map(({ setup }) => {
      const { size, descriptor, available, used } = setup;
      const places = { size, descriptor, available, used, base: 0 };
      const layout = { ...places, packed: false, indirect: false, eventIdx: false };
      return this.#stack.use(createDeviceRing(guest, guest, layout));
    });
    this.device = { queues: this.queues, config: { name: "d" } } as unknown as MachineDevice;
  }

  /** Takes the next chain of a queue, and answers it. */
  answer(queue: number, bytes: Uint8Array): void {
    const chain = new Chain();
    const ring = this.rings[queue]!;
    if (!ring.pop(chain)) throw new Error(`nothing is in queue ${queue}`);
    chain.copyToWritable(0, bytes);
    ring.complete(chain, bytes.length);
    ring.publish();
  }

  /** What the driver sent. */
  sent(queue: number): Uint8Array {
    const chain = new Chain();
    const ring = this.rings[queue]!;
    if (!ring.pop(chain)) throw new Error(`nothing is in queue ${queue}`);
    const bytes = new Uint8Array(chain.readableBytes);
    chain.copyFromReadable(0, bytes);
    ring.complete(chain, 0);
    ring.publish();
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

test("random: an answer that is empty, all zeros or came before is a failure", () => {
  using by = new ByHand(1);
  const config = { kind: "random", source: "d", bytes: 16, "in-flight": 8, "pause-ms": 0 } as const;
  using draw = new RandomWorkload(config, by.device, by.memory, by.loop);
  draw.run();
  const answers = [1, 2, 1, 0].map((seed) => new Uint8Array(16).fill(seed));
  for (const answer of [...answers, new Uint8Array(0), Uint8Array.of(0)]) by.answer(0, answer);
  draw.pause();
  draw.onInterrupt();
  expect(draw.verify()).toMatchObject({ checked: 6, lost: 1, torn: 1, repeated: 1 });
  expect(draw.verify().failures).toEqual(["d: 1 empty answers, 1 of zeros only, 1 repeated"]);
  expect(draw.counters()).toMatchObject({ answers: 6, bytes: 65, inFlight: 2 });
  // What was answered before the state was saved is remembered after it was loaded.
  using other = new ByHand(1);
  using next = new RandomWorkload(config, other.device, other.memory, other.loop, draw.exportState());
  next.run();
  other.answer(0, answers[1]!);
  next.onInterrupt();
  expect(next.verify()).toMatchObject({ checked: 7, repeated: 2 });
  expect(() => new RandomWorkload(config, other.device, other.memory, other.loop, { recent: 1 })).toThrow(
    "the workload's state is invalid: recent",
  );
});

test("frames: one that is damaged or late is a failure, one that is missing is not", () => {
  using by = new ByHand(2);
  const config = { kind: "frames", interface: "d", "pause-ms": 0 } as const;
  using frames = new FramesWorkload(config, by.device, by.memory, by.loop);
  frames.run();
  for (let turn = 0; turn < 4; turn++) frames.onInterrupt();
  const [first, second, third, fourth] = [1, 2, 3, 4].map(() => by.sent(1));
  const damaged = fourth!.slice();
  damaged[HEADER_BYTES + 200]! ^= 1;
  const foreign = first!.slice();
  foreign[HEADER_BYTES + 12] = 8;
  for (const frame of [first, third, second, third, damaged, foreign]) by.answer(0, frame!);
  frames.pause();
  frames.onInterrupt();
  expect(frames.counters()).toMatchObject({ received: 5, missed: 1, late: 2, torn: 1 });
  expect(frames.verify()).toMatchObject({
    checked: 5,
    torn: 1,
    repeated: 2,
    failures: ["d: 1 frames torn, 2 repeated or late"],
  });
});
