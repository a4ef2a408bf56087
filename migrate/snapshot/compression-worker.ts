/** A compression Worker (compression-pool.ts): takes windows, compresses them, until it is told to stop. */
import { workerData } from "node:worker_threads";
import { Mapping } from "../../src/sys/mod.ts";
import { createZstd } from "./compression.ts";
import { CompressionSlots, Counter, SlotState } from "./compression-slots.ts";
import { WindowPacker } from "./pack-window.ts";
import { PageTable } from "./page-table.ts";

export interface CompressionSetup {
  readonly memory: SharedArrayBuffer;
  readonly level: number;
  /** Of the table of pages. */
  readonly pages: SharedArrayBuffer;
}

const { memory, level, pages } = workerData as CompressionSetup;
const slots = new CompressionSlots(memory);
const { counters } = slots;
const packer = new WindowPacker(createZstd(level), new PageTable(pages));
Atomics.add(counters, Counter.ready, 1);
Atomics.notify(counters, Counter.ready);
for (;;) {
  const job = Atomics.add(counters, Counter.taken, 1);
  if (!waitUntilPosted(job)) break;
  const isDone = work(job);
  Atomics.store(counters, slots.stateIndex(job), isDone ? SlotState.done : SlotState.failed);
  Atomics.notify(counters, slots.stateIndex(job));
}

function waitUntilPosted(job: number): boolean {
  for (;;) {
    const posted = Atomics.load(counters, Counter.posted);
    if (Atomics.load(counters, Counter.stopped) !== 0) return false;
    if (posted > job) return true;
    Atomics.wait(counters, Counter.posted, posted);
  }
}

/** The writer learns only that it failed, and does that window itself: then the error is thrown where it belongs. */
function work(job: number): boolean {
  const { address, sizeBytes, isLookedUp } = slots.window(job);
  using mapping = Mapping.alias(address, sizeBytes, "a window to compress");
  try {
    const window = new Uint8Array(mapping.window(0, sizeBytes));
    slots.setPacked(job, packer.pack(window, isLookedUp ? address : 0, slots.room(job)));
    return true;
  } catch {
    return false;
  }
}
