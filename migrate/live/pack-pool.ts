import { Worker } from "node:worker_threads";
import { StateError } from "../../src/errors.ts";
import { allocateSlots, type PackDone, type PackJob, type PackSetup, slotViews } from "./pack-slots.ts";
import type { WindowPlace } from "./window-packer.ts";

/** So that a Worker finds the next window while the last one goes out. */
const SLOTS_PER_WORKER = 3;

interface Lane {
  readonly worker: Worker;
  readonly memory: SharedArrayBuffer;
  readonly free: number[];
  readonly waiting: ((slot: number) => void)[];
  tail: Promise<void>;
  readonly running: Map<number, { resolve(done: PackDone): void; reject(error: Error): void }>;
}

/**
 * Packs windows in Workers. A stream's windows all go to one of them, which knows what it has sent; their payloads come in
 * the order in which they were given.
 */
export class PackPool implements Disposable {
  readonly #lanes: readonly Lane[];
  #failure: Error | undefined;

  constructor(workerCount: number, cacheBytes: number) {
    this.#lanes = Array.from({ length: workerCount }, () => this.#lane(cacheBytes));
  }

  /** Whether a window of this stream would have to wait for a Worker. */
  isBusy(stream: number): boolean {
    return this.#of(stream).free.length === 0;
  }

  /**
   * Packs `window`, which may change as soon as this has been called and a slot was free; `take` gets the payload, in room
   * that is used again when its promise is over.
   *
   * @returns once the window was copied; the packing goes on
   */
  async pack(
    stream: number,
    window: Uint8Array,
    place: WindowPlace,
    take: (payload: Uint8Array) => Promise<void>,
  ): Promise<{ readonly done: Promise<void> }> {
    const lane = this.#of(stream);
    const slot = await this.#slot(lane);
    if (this.#failure !== undefined) throw this.#failure;
    slotViews(lane.memory, slot).window.set(window);
    const job: PackJob = { ...place, slot, stream, sizeBytes: window.length };
    const packed = new Promise<PackDone>((resolve, reject) => lane.running.set(slot, { resolve, reject }));
    lane.worker.postMessage(job);
    // One after the other: what takes its time with one payload must not let the next overtake it.
    const done = lane.tail.then(() => this.#finish(lane, packed, take));
    lane.tail = done.catch(() => {});
    return { done };
  }

  [Symbol.dispose](): void {
    this.#fail(new StateError("the packing has ended"));
    for (const { worker } of this.#lanes) void worker.terminate();
  }

  /** Slots are handed on in the order of those who wait. */
  #slot(lane: Lane): Promise<number> | number {
    const slot = this.#failure === undefined ? lane.free.shift() : 0;
    return slot ?? new Promise<number>((resolve) => lane.waiting.push(resolve));
  }

  async #finish(
    lane: Lane,
    packed: Promise<PackDone>,
    take: (payload: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const { slot, packedBytes, fault } = await packed;
    if (packedBytes === undefined) throw new StateError(`a window of memory could not be packed: ${fault}`);
    try {
      await take(slotViews(lane.memory, slot).room.subarray(0, packedBytes));
    } finally {
      const next = lane.waiting.shift();
      if (next === undefined) lane.free.push(slot);
      else next(slot);
    }
  }

  #lane(cacheBytes: number): Lane {
    const memory = allocateSlots(SLOTS_PER_WORKER);
    const setup: PackSetup = { memory, cacheBytes };
    const worker = new Worker(new URL("./pack-worker.ts", import.meta.url), { workerData: setup });
    worker.unref();
    const free = Array.from({ length: SLOTS_PER_WORKER }, (_, slot) => slot);
    const lane: Lane = { worker, memory, free, waiting: [], tail: Promise.resolve(), running: new Map() };
    worker.on("message", (done: PackDone) => {
      lane.running.get(done.slot)?.resolve(done);
      lane.running.delete(done.slot);
    });
    worker.on("error", (cause) => this.#fail(new StateError("a pack Worker failed", { cause })));
    return lane;
  }

  #of(stream: number): Lane {
    return this.#lanes[stream % this.#lanes.length] as Lane;
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { running, waiting } of this.#lanes) {
      for (const { reject } of running.values()) reject(error);
      running.clear();
      for (const resume of waiting.splice(0)) resume(0);
    }
  }
}
