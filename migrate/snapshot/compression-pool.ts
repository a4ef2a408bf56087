import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { PeerError } from "../../src/errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, MAX_SNAPSHOT_WORKERS } from "../../src/limits.ts";
import { addressOf } from "../../src/sys/mod.ts";
import { CompressionSlots, Counter, SlotState } from "./compression-slots.ts";
import type { CompressionSetup, ParentSetup } from "./compression-worker.ts";
import type { PackedWindow, RegionPlace } from "./pack-window.ts";
import type { PageTable } from "./page-table.ts";

/** So that a Worker always finds the next window while the writer places the last one. */
const SLOTS_PER_WORKER = 4;

/** A window of the bytes that are being compressed. */
export interface Window {
  readonly offset: number;
  readonly sizeBytes: number;
}

/**
 * Compresses on all processors (at most 4), with one Worker each. The caller waits in line: nothing here needs the event
 * loop. Two Workers reach 2815 MB/s at level 1 where zstd's own two threads reach 2185 (1 MiB of guest memory each).
 */
export class CompressionPool implements Disposable {
  readonly #slots: CompressionSlots;
  readonly #workers: readonly Worker[];
  #posted = 0;

  constructor(level: number, pages: PageTable, parent?: ParentSetup) {
    const count = CompressionPool.workerCount();
    const memory = CompressionSlots.allocate(count * SLOTS_PER_WORKER);
    this.#slots = new CompressionSlots(memory);
    const setup: CompressionSetup = { memory, level, pages: pages.memory, parent };
    this.#workers = Array.from({ length: count }, () => {
      const worker = new Worker(new URL("./compression-worker.ts", import.meta.url), { workerData: setup });
      worker.unref();
      return worker;
    });
    this.#waitWhile(Counter.ready, 0);
  }

  static workerCount(): number {
    return Math.min(availableParallelism(), MAX_SNAPSHOT_WORKERS);
  }

  /**
   * Packs `windows` of `bytes`, which nobody may change meanwhile. `take` gets each in order, with the frame in `room`
   * until it returns; `undefined` for one that a Worker could not do.
   *
   * @param place Of the first of `bytes`, in its region.
   * @param isLookedUp Whether duplicates are to be found.
   */
  compress(
    bytes: Uint8Array,
    windows: readonly Window[],
    place: RegionPlace,
    isLookedUp: boolean,
    take: (window: Window, packed: PackedWindow | undefined, room: Uint8Array) => void,
  ): void {
    const slots = this.#slots;
    const address = addressOf(bytes);
    const first = this.#posted;
    const post = (index: number): void => {
      const { offset, sizeBytes } = windows[index] as Window;
      slots.setWindow(first + index, {
        address: address + offset,
        sizeBytes,
        isLookedUp,
        regionId: place.regionId,
        offset: place.offset + offset,
      });
      Atomics.store(slots.counters, slots.stateIndex(first + index), SlotState.posted);
      this.#posted += 1;
      Atomics.store(slots.counters, Counter.posted, this.#posted);
      Atomics.notify(slots.counters, Counter.posted);
    };
    for (let index = 0; index < Math.min(slots.count, windows.length); index += 1) post(index);
    try {
      for (const [index, window] of windows.entries()) {
        const job = first + index;
        this.#waitWhile(slots.stateIndex(job), SlotState.posted);
        const isDone = Atomics.load(slots.counters, slots.stateIndex(job)) === SlotState.done;
        take(window, isDone ? slots.packed(job) : undefined, slots.room(job));
        if (index + slots.count < windows.length) post(index + slots.count);
      }
    } finally {
      // When `take` throws, Workers still read from `bytes`: they are waited for.
      for (let job = first; job < this.#posted; job += 1)
        this.#waitWhile(slots.stateIndex(job), SlotState.posted);
    }
  }

  [Symbol.dispose](): void {
    Atomics.store(this.#slots.counters, Counter.stopped, 1);
    Atomics.add(this.#slots.counters, Counter.posted, 1);
    Atomics.notify(this.#slots.counters, Counter.posted);
    for (const worker of this.#workers) void worker.terminate();
  }

  #waitWhile(index: number, value: number): void {
    const { counters } = this.#slots;
    while (Atomics.load(counters, index) === value) {
      if (Atomics.wait(counters, index, value, DEFAULT_TRANSFER_IDLE_TIMEOUT_MS) === "timed-out") {
        throw new PeerError(`a compression Worker did nothing for ${DEFAULT_TRANSFER_IDLE_TIMEOUT_MS} ms`);
      }
    }
  }
}
