import { StateError } from "../errors.ts";
import { Deadline, drainEvent, type EventLoop, type Fd, POLL } from "../sys/mod.ts";
import { RingError } from "../vring/mod.ts";
import type { QueueRunner } from "./device.ts";
import type { DeviceQueue } from "./device-queue.ts";

export interface RingStart {
  readonly queue: DeviceQueue;
  readonly runner: QueueRunner;
  /** Stays the caller's, and open until the ring was stopped. */
  readonly kick: Fd | undefined;
  /** The front-end gave no kick and sends none in-band: the ring is looked at again and again. */
  readonly polled: boolean;
  readonly enabled: boolean;
  /** The driver broke the ring; it is stopped where it stands. */
  readonly onError: (error: RingError) => void;
}

/** Runs started rings: waits for kicks and calls the device's runners. Where they run is the executor's business. */
export interface RingExecutor {
  start(start: RingStart): void;
  setEnabled(index: number, enabled: boolean): void;
  /** Runs the ring once, as after a kick. */
  kick(index: number): void;
  /** Returns once nothing of the ring runs any more. @throws StateError when it did not drain in time */
  stop(index: number, drain: { readonly timeoutMs: number } | "skip"): void;
  /** Takes a ring that its driver broke out of service until it is stopped. */
  fail(index: number): void;
}

/** How often a ring without a kick fd is looked at. */
const POLL_INTERVAL_MS = 1;

interface Running extends RingStart {
  enabled: boolean;
  failed: boolean;
  cancelPolling: () => void;
}

/** Runs all rings in line on the control thread's own loop. */
export class LoopRingExecutor implements RingExecutor {
  readonly #rings = new Map<number, Running>();

  constructor(readonly loop: EventLoop) {}

  start(start: RingStart): void {
    const ring: Running = { ...start, failed: false, cancelPolling: () => {} };
    this.#rings.set(start.queue.index, ring);
    if (ring.enabled) this.#resume(ring);
  }

  setEnabled(index: number, enabled: boolean): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.enabled === enabled) return;
    ring.enabled = enabled;
    if (enabled) this.#resume(ring);
    else this.#pause(ring);
  }

  kick(index: number): void {
    const ring = this.#rings.get(index);
    if (ring?.enabled) this.#run(ring);
  }

  stop(index: number, drain: { readonly timeoutMs: number } | "skip"): void {
    const ring = this.#rings.get(index);
    if (ring === undefined) return;
    this.#pause(ring);
    this.#rings.delete(index);
    if (ring.failed || drain === "skip") return;
    const deadline = new Deadline(drain.timeoutMs);
    while (ring.runner.drain !== undefined && !ring.runner.drain()) {
      if (deadline.expired) throw new StateError(`queue ${index} did not drain within ${drain.timeoutMs} ms`);
    }
  }

  #resume(ring: Running): void {
    if (ring.polled) this.#poll(ring);
    if (ring.kick !== undefined) {
      this.loop.watch(ring.kick, POLL.IN, () => {
        drainEvent(ring.kick!);
        this.#run(ring);
      });
    }
    // What was added before the start came without a kick that we could have seen.
    this.#run(ring);
  }

  #pause(ring: Running): void {
    ring.cancelPolling();
    if (ring.kick !== undefined) this.loop.unwatch(ring.kick);
  }

  #poll(ring: Running): void {
    ring.cancelPolling = this.loop.schedule(POLL_INTERVAL_MS, () => {
      this.#run(ring);
      if (!ring.failed) this.#poll(ring);
    });
  }

  #run(ring: Running): void {
    if (ring.failed) return;
    try {
      ring.runner.onKick();
    } catch (error) {
      if (!(error instanceof RingError)) throw error;
      ring.onError(error);
    }
  }

  fail(index: number): void {
    const ring = this.#rings.get(index);
    if (ring === undefined) return;
    ring.failed = true;
    this.#pause(ring);
  }
}
