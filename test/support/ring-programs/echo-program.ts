import type { DeviceQueue, RingRunner } from "../../../src/backend/mod.ts";
import { Deadline, Fd, POLL, waitReadySync } from "../../../src/sys/mod.ts";
import { Chain } from "../../../src/vring/mod.ts";

export interface EchoParameters {
  /** Word 0: chains are held, and completed once it is 0. Word 1: how many are. Absent: they are completed at once. */
  readonly hold?: SharedArrayBuffer;
  /** Before each chain is completed, the thread waits in a system call until this fd is readable. `count`: how often. */
  readonly stuck?: { readonly until: number; readonly count: SharedArrayBuffer };
}

const FOR_EVER_MS = 600_000;

/** A device for tests: copies what it reads to what it writes. */
export function createRunner(queue: DeviceQueue, parameters: unknown): RingRunner {
  const { hold, stuck } = parameters as EchoParameters;
  const holding = hold && new Int32Array(hold);
  const bytes = new Uint8Array(4096);
  const held: Chain[] = [];
  const isHeld = () => holding !== undefined && Atomics.load(holding, 0) !== 0;
  function finish(chain: Chain): void {
    if (stuck !== undefined) waitFor(stuck);
    const read = bytes.subarray(0, chain.copyFromReadable(0, bytes));
    queue.complete(chain, chain.copyToWritable(0, read));
  }
  function finishHeld(): boolean {
    if (held.length === 0 || isHeld()) return false;
    for (const chain of held.splice(0)) finish(chain);
    queue.publish();
    return true;
  }
  function hasTaken(): boolean {
    let found = false;
    for (let chain = new Chain(); queue.pop(chain); chain = new Chain()) {
      held.push(chain);
      found = true;
    }
    if (holding !== undefined) Atomics.store(holding, 1, held.length);
    return found;
  }
  return {
    poll() {
      const found = hasTaken();
      return finishHeld() || found;
    },
    drain() {
      finishHeld();
      return held.length === 0;
    },
    [Symbol.dispose]() {},
  };
}

function waitFor({ until, count }: NonNullable<EchoParameters["stuck"]>): void {
  const fd = new Fd(until, "stuck");
  Atomics.add(new Int32Array(count), 0, 1);
  waitReadySync(fd, POLL.IN, new Deadline(FOR_EVER_MS));
  fd.take();
}
