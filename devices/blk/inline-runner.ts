import type { DeviceQueue, RingRunner } from "../../src/backend/mod.ts";
import { Chain } from "../../src/vring/mod.ts";
import { giveBack, type ImageFiles } from "./image-files.ts";
import type { RequestProcessor } from "./request-processor.ts";

/** Requests that are served before their completions are shown: the driver works on one batch while we work on the next. */
const MAX_BATCH = 16;

/** Serves a ring with preadv and pwritev, one request after the other. */
export class InlineRunner implements RingRunner {
  readonly #chain = new Chain();

  constructor(
    readonly queue: DeviceQueue,
    readonly files: ImageFiles,
    readonly processor: RequestProcessor,
  ) {}

  poll(): boolean {
    const { queue } = this;
    const chain = this.#chain;
    let count = 0;
    while (count < MAX_BATCH && queue.pop(chain)) {
      queue.complete(chain, this.processor.serve(chain));
      count++;
    }
    if (count > 0) queue.publish();
    return count > 0;
  }

  [Symbol.dispose](): void {
    giveBack(this.files);
  }
}
