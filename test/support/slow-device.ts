import type { DeviceQueue, QueueRunner } from "../../src/backend/mod.ts";
import type { EventLoop } from "../../src/sys/mod.ts";
import { Chain } from "../../src/vring/mod.ts";
import { TestDevice } from "./test-device.ts";

/** Keeps requests for a while and completes them in another order than they came in, a few at a time. */
export class SlowDevice extends TestDevice {
  #turn = 0;

  constructor(
    readonly loop: EventLoop,
    maxQueues = 2,
  ) {
    super(maxQueues, 0xffn);
  }

  override startQueue(queue: DeviceQueue): QueueRunner {
    super.startQueue(queue);
    const held: Chain[] = [];
    let timer: (() => void) | undefined;
    const complete = (count: number) => {
      for (let i = 0; i < count && held.length > 0; i++) {
        this.#turn = (this.#turn * 31 + 7) % 1009;
        const [chain] = held.splice(this.#turn % held.length, 1);
        const bytes = new Uint8Array(Math.min(chain!.readableBytes, chain!.writableBytes));
        chain!.copyFromReadable(0, bytes);
        queue.complete(chain!, chain!.copyToWritable(0, bytes));
      }
      queue.publish();
    };
    const later = () => {
      timer = undefined;
      if (!this.queues.has(queue.index)) return;
      complete(3);
      if (held.length > 0) timer = this.loop.schedule(1, later);
    };
    return {
      onKick: () => {
        for (let chain = new Chain(); queue.pop(chain); chain = new Chain()) held.push(chain);
        if (held.length > 0) timer ??= this.loop.schedule(1, later);
      },
      drain: () => {
        timer?.();
        complete(held.length);
        return true;
      },
    };
  }
}
