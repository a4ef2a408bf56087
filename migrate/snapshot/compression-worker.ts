/** A compression Worker (compression-pool.ts): takes windows, compresses them, until it is told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { Mapping } from "../../src/sys/mod.ts";
import { createZstd } from "./compression.ts";
import { CompressionSlots, Counter, SlotState } from "./compression-slots.ts";
import { FileInput, type SharedInput } from "./file-input.ts";
import { LoadTable } from "./load-table.ts";
import type { SnapshotRegion } from "./manifest.ts";
import { WindowPacker } from "./pack-window.ts";
import { PageHashes } from "./page-hashes.ts";
import { PageTable } from "./page-table.ts";
import { ParentPages } from "./parent-pages.ts";

/** A parent's frames: a table of them, and the files that they are in. */
export interface ParentSetup {
  readonly table: SharedArrayBuffer;
  readonly files: readonly SharedInput[];
}

/** Pages are hashed, and compared with the parent's where it has hashes. */
export interface HashSetup {
  readonly key: Uint8Array;
  readonly parent:
    | { readonly memory: SharedArrayBuffer; readonly regions: readonly SnapshotRegion[] }
    | undefined;
}

export interface CompressionSetup {
  readonly memory: SharedArrayBuffer;
  readonly level: number;
  /** Of the table of pages. */
  readonly pages: SharedArrayBuffer;
  readonly parent: ParentSetup | undefined;
  readonly hashes: HashSetup | undefined;
}

const { memory, level, pages, parent, hashes } = workerData as CompressionSetup;
const slots = new CompressionSlots(memory);
const { counters } = slots;
const packer = new WindowPacker(createZstd(level), {
  pages: new PageTable(pages),
  parent: parentOf(parent),
  hashKey: hashes?.key,
  parentHashes: hashes?.parent && new PageHashes(hashes.parent.regions, hashes.key, hashes.parent.memory),
});
for (;;) {
  const job = Atomics.add(counters, Counter.taken, 1);
  if (!waitUntilPosted(job)) break;
  const isDone = work(job);
  Atomics.store(counters, slots.stateIndex(job), isDone ? SlotState.done : SlotState.failed);
  const left = Atomics.load(counters, Counter.posted) - Atomics.add(counters, Counter.done, 1) - 1;
  Atomics.notify(counters, Counter.done);
  const isNews = left <= slots.halfCount && Atomics.exchange(counters, Counter.isAwaited, 0) !== 0;
  if (isNews) parentPort?.postMessage(0);
}

function waitUntilPosted(job: number): boolean {
  for (;;) {
    const posted = Atomics.load(counters, Counter.posted);
    if (Atomics.load(counters, Counter.stopped) !== 0) return false;
    if (posted > job) return true;
    Atomics.add(counters, Counter.sleeping, 1);
    Atomics.wait(counters, Counter.posted, posted);
    Atomics.sub(counters, Counter.sleeping, 1);
  }
}

/** The writer learns only that it failed, and does that window itself: then the error is thrown where it belongs. */
function work(job: number): boolean {
  const { address, sizeBytes, isLookedUp, ...known } = slots.window(job);
  using mapping = Mapping.alias(address, sizeBytes, "a window to compress");
  try {
    const plain = new Uint8Array(mapping.window(0, sizeBytes));
    const window = { ...known, plain, address: isLookedUp ? address : 0 };
    slots.setPacked(job, packer.pack(window, slots.room(job)));
    if (hashes !== undefined) slots.pageHashes(job).set(packer.pageHashes);
    return true;
  } catch {
    return false;
  }
}

function parentOf(setup: ParentSetup | undefined): ParentPages | undefined {
  if (setup === undefined) return undefined;
  const inputs = setup.files.map((file) => FileInput.borrow(file));
  return new ParentPages(new LoadTable(setup.table), inputs);
}
