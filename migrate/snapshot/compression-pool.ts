import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { PeerError, StateError } from "../../src/errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, MAX_SNAPSHOT_WORKERS } from "../../src/limits.ts";
import { addressOf } from "../../src/sys/mod.ts";
import { CompressionSlots, Counter, SlotState } from "./compression-slots.ts";
import type { CompressionSetup, HashSetup, ParentSetup } from "./compression-worker.ts";
import type { PlacedWindow } from "./extent-writer.ts";
import type { PackedWindow } from "./pack-window.ts";
import type { PageTable } from "./page-table.ts";

/** So that a Worker finds the next window also where this thread is busy, or not scheduled, for a while: 1 MiB each. */
const SLOTS_PER_WORKER = 12;

/** Gets a window's frame in `room` until it returns; `undefined` for a window that no Worker has done. */
type Take = (packed: PackedWindow | undefined, room: Uint8Array, pageHashes: BigUint64Array) => void;

export interface PoolSetup {
  readonly level: number;
  readonly pages: PageTable;
  readonly parent: ParentSetup | undefined;
  readonly hashes: HashSetup | undefined;
}

interface Job {
  readonly window: PlacedWindow;
  readonly take: Take;
}

/**
 * Compresses on all processors (at most 4), with one Worker each, while this thread goes on. Two Workers reach 2815 MB/s at
 * level 1 where zstd's own two threads reach 2185 (1 MiB of guest memory each).
 */
export class CompressionPool implements Disposable {
  readonly #slots: CompressionSlots;
  readonly #workers: readonly Worker[];
  /** Given in, and not with the Workers yet. */
  readonly #waiting: Job[] = [];
  /** With the Workers, the oldest first; the first one's number is `#first`. */
  readonly #posted: Job[] = [];
  #first = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #onFault: (error: Error) => void;

  /** @param onFault Called when the Workers are of no use any more, before what they had is given back. */
  constructor(setUp: PoolSetup, onFault: (error: Error) => void) {
    this.#onFault = onFault;
    const count = CompressionPool.workerCount();
    const memory = CompressionSlots.allocate(count * SLOTS_PER_WORKER);
    this.#slots = new CompressionSlots(memory);
    const setup: CompressionSetup = { ...setUp, pages: setUp.pages.memory, memory };
    this.#workers = Array.from({ length: count }, () => {
      const worker = new Worker(new URL("./compression-worker.ts", import.meta.url), { workerData: setup });
      worker.unref();
      worker.on("message", () => this.#watch());
      worker.on("error", (cause) => this.#fail(new StateError("a compression Worker failed", { cause })));
      return worker;
    });
  }

  static workerCount(): number {
    return Math.min(availableParallelism(), MAX_SNAPSHOT_WORKERS);
  }

  /**
   * Packs windows, whose bytes nobody may change until their `take` was called. Windows are taken in order. Many at a time
   * cost less: a Worker that sleeps is woken once.
   */
  submit(jobs: readonly Job[]): void {
    this.#waiting.push(...jobs);
    this.#watch();
  }

  /** What no Worker has begun is given back; the rest comes when it is done. */
  cancel(): void {
    for (const { take } of this.#waiting.splice(0)) take(undefined, NO_ROOM, NO_HASHES);
  }

  /** Waits in line until no Worker has anything to do: nobody looks at the memory of a window then. */
  settle(): void {
    const { counters } = this.#slots;
    while (this.#posted.length > 0) {
      const seen = Atomics.load(counters, Counter.done);
      this.#collect();
      if (this.#posted.length === 0) return;
      if (Atomics.wait(counters, Counter.done, seen, DEFAULT_TRANSFER_IDLE_TIMEOUT_MS) === "timed-out") {
        this.#fail(idle());
      }
    }
  }

  [Symbol.dispose](): void {
    this.cancel();
    this.settle();
    this.#watch();
    Atomics.store(this.#slots.counters, Counter.stopped, 1);
    Atomics.add(this.#slots.counters, Counter.posted, 1);
    Atomics.notify(this.#slots.counters, Counter.posted);
    for (const worker of this.#workers) void worker.terminate();
  }

  /** Takes what is done, in order, and gives the Workers more. */
  #collect(): void {
    for (;;) {
      this.#post();
      const [job] = this.#posted;
      if (job === undefined) return;
      const state = Atomics.load(this.#slots.counters, this.#slots.stateIndex(this.#first));
      if (state === SlotState.posted) return;
      const packed = state === SlotState.done ? this.#slots.packed(this.#first) : undefined;
      job.take(packed, this.#slots.room(this.#first), this.#slots.pageHashes(this.#first));
      this.#posted.shift();
      this.#first += 1;
    }
  }

  /** Many at a time, too: only when the Workers have half of what they can hold. */
  #post(): void {
    if (this.#posted.length > this.#slots.halfCount) return;
    const { counters } = this.#slots;
    const before = Atomics.load(counters, Counter.posted);
    while (this.#posted.length < this.#slots.count) {
      const job = this.#waiting.shift();
      if (job === undefined) break;
      const { plain, regionId, offset, address, frameNumber, unchanged } = job.window;
      const number = this.#first + this.#posted.push(job) - 1;
      this.#slots.setWindow(number, {
        address: addressOf(plain),
        sizeBytes: plain.length,
        isLookedUp: address !== 0,
        regionId,
        offset,
        frameNumber,
        unchanged,
      });
      Atomics.store(counters, this.#slots.stateIndex(number), SlotState.posted);
      Atomics.store(counters, Counter.posted, number + 1);
    }
    // A Worker counts itself before it looks for the last time at what is posted: none is missed.
    const isNew = Atomics.load(counters, Counter.posted) !== before;
    if (isNew && Atomics.load(counters, Counter.sleeping) > 0) Atomics.notify(counters, Counter.posted);
  }

  /**
   * Asks for a message when something is done. Not by Atomics.waitAsync: Bun 1.4.5 spins for a third of the time in which such
   * a wait is pending (measured). The timer keeps the process alive, and finds Workers that hang.
   */
  #watch(): void {
    Atomics.store(this.#slots.counters, Counter.isAwaited, 1);
    // What was done before that is not announced.
    this.#collect();
    if (this.#posted.length === 0) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    } else
      this.#timer ??= setTimeout(
        (seen) => this.#onTimer(seen),
        DEFAULT_TRANSFER_IDLE_TIMEOUT_MS,
        this.#first,
      );
  }

  #onTimer(seen: number): void {
    this.#timer = undefined;
    if (this.#first === seen) this.#fail(idle());
    this.#watch();
  }

  /** Nobody knows what the Workers do: all is given back. */
  #fail(error: Error): void {
    this.#onFault(error);
    this.cancel();
    this.#first += this.#posted.length;
    for (const { take } of this.#posted.splice(0)) take(undefined, NO_ROOM, NO_HASHES);
  }
}

const NO_ROOM = new Uint8Array(0);
const NO_HASHES = new BigUint64Array(0);

function idle(): PeerError {
  return new PeerError(`the compression Workers did nothing for ${DEFAULT_TRANSFER_IDLE_TIMEOUT_MS} ms`);
}
