import { expect, test } from "bun:test";
import fc from "fast-check";
import { FrameQueue } from "../../../devices/net/frame-queue.ts";
import { MAX_NET_QUEUE_BYTES } from "../../../src/limits.ts";

test("a queue of frames is a queue: nothing is lost, repeated, reordered or overwritten", () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant("push" as const),
      sizeBytes: fc.integer({ min: 26, max: MAX_NET_QUEUE_BYTES >> 2 }),
    }),
    fc.record({ kind: fc.constantFrom("shift" as const, "pop" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new FrameQueue();
      const model: { readonly seed: number; readonly sizeBytes: number }[] = [];
      for (const [seed, one] of steps.entries()) {
        if (one.kind === "push") {
          const place = queue.push(one.sizeBytes);
          if (place === undefined) continue;
          place.fill(seed);
          model.push({ seed, sizeBytes: one.sizeBytes });
        } else if (model.length > 0) {
          queue[one.kind]();
          model[one.kind]();
        }
        expect(queue.length).toBe(model.length);
        const whole = queue.toArray().every((frame, i) => {
          const { seed: expected, sizeBytes } = model[i]!;
          return Buffer.alloc(sizeBytes, expected).equals(frame);
        });
        expect(whole).toBe(true);
      }
    }),
    { numRuns: 100 },
  );
});

test("thousands of small frames pass through it", () => {
  const queue = new FrameQueue();
  for (let i = 0; i < 3000; i++) queue.push(60)!.fill(i);
  for (let i = 0; i < 3000; i++) {
    expect(queue.front()![0]).toBe(i & 0xff);
    queue.shift();
  }
  expect(queue.front()).toBeUndefined();
});
