import { BlkDevice } from "../../devices/blk/mod.ts";
import { createRunner } from "../../devices/blk/ring-program.ts";
import type { DeviceQueue, QueueRunner, RingRunner } from "../../src/backend/mod.ts";
import type { Logger } from "../../src/logger.ts";

/** A block device whose queues run the ring program in the test's own thread, as a ring Worker would. */
export class BlkInThread extends BlkDevice {
  readonly #runners = new Map<number, RingRunner>();

  constructor(
    image: ConstructorParameters<typeof BlkDevice>[0],
    options: ConstructorParameters<typeof BlkDevice>[1] & { readonly logger: Logger },
  ) {
    super(image, options);
    this.logger = options.logger;
  }

  readonly logger: Logger;

  override startQueue(queue: DeviceQueue): QueueRunner {
    const runner = createRunner(queue, this.startQueueInWorker(queue.index), this.logger);
    this.#runners.set(queue.index, runner);
    return { onKick: () => runAll(runner) };
  }

  override stopQueue(index: number): void {
    this.#runners.get(index)?.[Symbol.dispose]();
    this.#runners.delete(index);
  }
}

function runAll(runner: RingRunner): void {
  let isBusy = true;
  while (isBusy) {
    const found = runner.poll();
    isBusy = found || !(runner.drain?.() ?? true);
  }
}
