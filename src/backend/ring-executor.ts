import { StateError, VhuError } from "../errors.ts";
import { Deadline, drainEvent, type EventLoop, type Fd, POLL } from "../sys/mod.ts";
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
  /** The ring cannot go on: its driver broke it, or what serves it failed. It is stopped where it stands. */
  readonly onError: (error: VhuError) => void;
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
/**
 * How long a ring may be disabled before what it is kicked for is discarded: front-ends start a ring and enable it at once, and
 * the driver's frames must not fall between the two.
 */
const DISCARD_AFTER_MS = 50;

interface Running extends RingStart {
  enabled: boolean;
  failed: boolean;
  cancelPolling: () => void;
  /** Of a discard to come. */
  cancelDiscard: (() => void) | undefined;
}

/** Runs all rings in line on the control thread's own loop. */
export class LoopRingExecutor implements RingExecutor {
  readonly #rings = new Map<number, Running>();

  constructor(readonly loop: EventLoop) {}

  start(start: RingStart): void {
    const ring: Running = { ...start, failed: false, cancelPolling: () => {}, cancelDiscard: undefined };
    this.#rings.set(start.queue.index, ring);
    if (ring.enabled) this.#resume(ring);
    else if (ring.kick !== undefined) this.#checkKick(ring.kick);
    if (!ring.enabled) this.#listenDisabled(ring);
  }

  setEnabled(index: number, enabled: boolean): void {
    const ring = this.#rings.get(index);
    if (ring === undefined || ring.enabled === enabled) return;
    ring.enabled = enabled;
    this.#pause(ring);
    if (enabled) this.#resume(ring);
    else this.#listenDisabled(ring);
  }

  kick(index: number): void {
    const ring = this.#rings.get(index);
    if (ring?.enabled) this.#run(ring);
    else if (ring !== undefined) this.#discardSoon(ring);
  }

  stop(index: number, drain: { readonly timeoutMs: number } | "skip"): void {
    const ring = this.#rings.get(index);
    if (ring === undefined) return;
    this.#pause(ring);
    this.#rings.delete(index);
    if (drain === "skip") return;
    const deadline = new Deadline(drain.timeoutMs);
    while (!this.#isDrained(ring)) {
      if (deadline.expired) throw new StateError(`queue ${index} did not drain within ${drain.timeoutMs} ms`);
    }
  }

  /** What is in flight on a broken ring uses guest memory, too, so it is waited for; that it fails is known already. */
  #isDrained(ring: Running): boolean {
    try {
      return ring.runner.drain?.() ?? true;
    } catch (error) {
      if (!(error instanceof VhuError && ring.failed)) throw error;
      return true;
    }
  }

  #resume(ring: Running): void {
    if (ring.failed) return;
    if (ring.polled) this.#poll(ring);
    const { kick } = ring;
    if (kick !== undefined) this.loop.watch(kick, POLL.IN, (ready) => this.#onKick(ring, kick, ready));
    // What was added before the start came without a kick that we could have seen.
    this.#run(ring);
  }

  /** What cannot be waited for (a file) is refused when it comes, not when the ring is enabled. @throws SyscallError */
  #checkKick(kick: Fd): void {
    this.loop.watch(kick, 0, () => {});
    this.loop.unwatch(kick);
  }

  #onKick(ring: Running, kick: Fd, ready: number): void {
    this.#guard(ring, () => {
      // A pipe whose writers are gone stays ready for ever and will never kick again.
      if (!drainEvent(kick) && (ready & (POLL.HUP | POLL.ERR)) !== 0) this.loop.unwatch(kick);
      ring.runner.onKick();
    });
  }

  /** Spec, "Ring states": a ring that is started and disabled is processed without side effects, where there is such a way. */
  #listenDisabled(ring: Running): void {
    if (ring.failed || ring.runner.discard === undefined) return;
    const { kick } = ring;
    if (kick === undefined) this.#discardSoon(ring);
    else
      this.loop.watch(kick, POLL.IN, (ready) => {
        if (!drainEvent(kick) && (ready & (POLL.HUP | POLL.ERR)) !== 0) this.loop.unwatch(kick);
        this.#discardSoon(ring);
      });
  }

  #discardSoon(ring: Running): void {
    if (ring.failed || ring.runner.discard === undefined) return;
    ring.cancelDiscard ??= this.loop.schedule(DISCARD_AFTER_MS, () => {
      ring.cancelDiscard = undefined;
      this.#guard(ring, () => ring.runner.discard?.());
      if (ring.polled) this.#discardSoon(ring);
    });
  }

  #pause(ring: Running): void {
    ring.cancelPolling();
    ring.cancelDiscard?.();
    ring.cancelDiscard = undefined;
    if (ring.kick !== undefined) this.loop.unwatch(ring.kick);
  }

  #poll(ring: Running): void {
    ring.cancelPolling = this.loop.schedule(POLL_INTERVAL_MS, () => {
      this.#run(ring);
      if (!ring.failed) this.#poll(ring);
    });
  }

  #run(ring: Running): void {
    if (!ring.failed) this.#guard(ring, () => ring.runner.onKick());
  }

  #guard(ring: Running, work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
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
