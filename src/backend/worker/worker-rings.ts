import assert from "node:assert/strict";
import { StateError, type VhuError } from "../../errors.ts";
import { DEFAULT_DRAIN_TIMEOUT_MS } from "../../limits.ts";
import { type Logger, silentLogger } from "../../logger.ts";
import type { GuestMemory } from "../../memory/mod.ts";
import { createEventFd, drainEvent, type EventLoop, type Fd, POLL, signalEvent } from "../../sys/mod.ts";
import type { RingLayout, SharedInflight } from "../../vring/mod.ts";
import { errorOf } from "./messages.ts";
import { type Notice, RingWorker } from "./ring-worker.ts";

/** How the driver of a ring is told of completions: an fd of the front-end's, or a message that only this thread can send. */
export type Call = Fd | (() => void) | undefined;

export interface WorkerRingStart {
  readonly index: number;
  readonly layout: RingLayout;
  readonly inflight: SharedInflight | undefined;
  /** Stays the caller's, which may close it at once: the Worker has a duplicate. */
  readonly kick: Fd | undefined;
  readonly call: Call;
  /** The front-end gave no kick and sends none in-band. */
  readonly polled: boolean;
  readonly enabled: boolean;
  /** What the program's `createRunner` is given. */
  readonly parameters: unknown;
  /** The ring is out of service until it is stopped. */
  readonly onError: (error: VhuError) => void;
}

export interface WorkerRingsOptions {
  /** Threads; ring i runs in thread i modulo this. */
  readonly workers?: number;
  /** How long a Worker may look for work before it sleeps; 0: not at all. */
  readonly spinUs?: number;
  readonly logger?: Logger;
  readonly timeoutMs?: number;
}

/** Twice the 25 us that a wake-up across cores costs in a VM: spinning then costs at most what it can save, once more. */
export const DEFAULT_SPIN_US = 50;

interface Placed {
  readonly worker: RingWorker;
  readonly onError: (error: VhuError) => void;
  /** Rings the Worker for kicks that come as messages. */
  readonly kick: Fd | undefined;
  /** Rung by the Worker where completions are told by messages. */
  bell: Fd | undefined;
  /** Its Worker was told to stop it, and was late. */
  isStopping: boolean;
}

/**
 * The rings of a device in ring Workers, seen from the control thread. Everything waits in line until the Worker has done it,
 * so that what the front-end is answered holds; only a kick does not.
 */
export class WorkerRings implements Disposable {
  readonly #workers: RingWorker[] = [];
  readonly #rings = new Map<number, Placed>();
  readonly #logger: Logger;
  readonly #timeoutMs: number;
  #afterwards: (() => void)[] = [];

  /** @param program a module that exports `createRunner` @throws StateError when it cannot be loaded */
  constructor(
    readonly loop: EventLoop,
    program: URL,
    options: WorkerRingsOptions = {},
  ) {
    const { workers = 1, spinUs = DEFAULT_SPIN_US, logger = silentLogger, timeoutMs } = options;
    this.#logger = logger;
    this.#timeoutMs = timeoutMs ?? DEFAULT_DRAIN_TIMEOUT_MS;
    using started = new DisposableStack();
    for (let i = 0; i < workers; i++) {
      const worker = started.use(new RingWorker(program, spinUs));
      this.#workers.push(worker);
      loop.watch(worker.reports, POLL.IN, () => this.#hear(worker));
      started.defer(() => loop.unwatch(worker.reports));
    }
    started.move();
  }

  /** A Worker has not answered an order in time. Until it is back, it may use all that it was given. */
  get isLate(): boolean {
    return this.#workers.some(({ isLate }) => isLate);
  }

  /** Calls back when no Worker is late: now, or on the loop once they are back. For giving up what they may use. */
  whenBack(work: () => void): void {
    this.#afterwards.push(work);
    this.#settle();
  }

  /** What the Workers see of guest memory. @throws StateError when one is late */
  setMemory(memory: GuestMemory): void {
    this.#settle();
    const regions = memory.regions.map((region) => region.share());
    const dirtyLog = memory.dirtyLog?.share();
    for (const worker of this.#workers) worker.order({ kind: "memory", regions, dirtyLog }, this.#timeoutMs);
  }

  /**
   * Guest memory may be unmapped after this, `whenBack`. Their rings must be stopped.
   * @throws StateError only for what is none of a Worker's being late
   */
  releaseMemory(): void {
    const order = { kind: "memory", regions: [], dirtyLog: undefined } as const;
    for (const worker of this.#workers) {
      if (worker.isLate) {
        worker.post(order);
        continue;
      }
      try {
        worker.order(order, this.#timeoutMs);
      } catch (error) {
        if (!worker.isLate) throw error;
      }
    }
  }

  /** F_LOG_ALL: once this returns, everything that is written to guest memory is logged. */
  setLogging(isOn: boolean): void {
    for (const worker of this.#workers) worker.order({ kind: "logging", isOn }, this.#timeoutMs);
  }

  /** @throws VhuError when the ring cannot be opened or the program refuses it */
  start(start: WorkerRingStart): void {
    const { index, layout, inflight, enabled, parameters, onError } = start;
    this.#settle();
    if (this.isLate) throw new StateError("a ring Worker is still busy with what it was told before");
    const worker = this.#workers[index % this.#workers.length]!;
    using owned = new DisposableStack();
    const kick = start.polled
      ? undefined
      : (start.kick?.duplicate() ?? createEventFd(`kick of ring ${index}`));
    if (kick !== undefined) owned.use(kick);
    const ring: Placed = { worker, onError, kick, bell: undefined, isStopping: false };
    const callFd = this.#callFd(ring, index, start.call);
    owned.defer(() => this.#removeBell(ring));
    const kickFd = kick?.duplicate().take();
    const order = { kind: "start", index, layout, inflight, kickFd, callFd, enabled, parameters } as const;
    try {
      worker.order(order, this.#timeoutMs);
    } catch (error) {
      // It will start the ring when it is back, and nobody waits for that any more.
      if (worker.isLate) worker.post({ kind: "stop", index, drainMs: undefined });
      throw error;
    }
    this.#rings.set(index, ring);
    owned.move();
  }

  setEnabled(index: number, enabled: boolean): void {
    this.#rings.get(index)?.worker.order({ kind: "enable", index, enabled }, this.#timeoutMs);
  }

  setCall(index: number, call: Call): void {
    const ring = this.#rings.get(index);
    if (ring === undefined) return;
    this.#removeBell(ring);
    const callFd = this.#callFd(ring, index, call);
    ring.worker.order({ kind: "call", index, callFd }, this.#timeoutMs);
  }

  /** Has the ring looked at, as after a kick. */
  kick(index: number): void {
    const kick = this.#rings.get(index)?.kick;
    if (kick !== undefined) signalEvent(kick);
  }

  /** Takes a ring out of service until it is stopped. */
  fail(index: number): void {
    this.#rings.get(index)?.worker.order({ kind: "fail", index }, this.#timeoutMs);
  }

  /**
   * Ends what is in flight, unless `drain` is "skip", and the ring. Returns its base.
   * @throws StateError when it did not drain in time; the ring is gone then, too, unless the Worker is late: then it is once
   * the Worker is back
   */
  stop(index: number, drain: { readonly timeoutMs: number } | "skip"): number {
    const ring = this.#rings.get(index);
    assert(ring !== undefined, `ring ${index} does not run`);
    const drainMs = drain === "skip" ? undefined : drain.timeoutMs;
    const { worker } = ring;
    const hasOrder = worker.isLate;
    try {
      return worker.order({ kind: "stop", index, drainMs }, this.#timeoutMs + (drainMs ?? 0));
    } finally {
      if (hasOrder && !ring.isStopping) worker.post({ kind: "stop", index, drainMs: undefined });
      ring.isStopping = true;
      this.whenBack(() => this.#forget(index, ring));
    }
  }

  has(index: number): boolean {
    return this.#rings.has(index);
  }

  /** Ends the threads. Rings must be stopped. */
  [Symbol.dispose](): void {
    for (const worker of this.#workers) {
      this.loop.unwatch(worker.reports);
      worker[Symbol.dispose]();
    }
  }

  #forget(index: number, ring: Placed): void {
    if (this.#rings.get(index) === ring) this.#rings.delete(index);
    this.#removeBell(ring);
    ring.kick?.[Symbol.dispose]();
  }

  /** Does what waited for Workers that are back. */
  #settle(): void {
    if (this.#afterwards.length === 0 || this.isLate) return;
    for (const work of this.#afterwards.splice(0)) work();
  }

  /** An fd for the Worker to own. */
  #callFd(ring: Placed, index: number, call: Call): number | undefined {
    if (call === undefined) return undefined;
    if (typeof call !== "function") return call.duplicate().take();
    const bell = createEventFd(`call of ring ${index}`);
    this.loop.watch(bell, POLL.IN, () => {
      drainEvent(bell);
      call();
    });
    ring.bell = bell;
    return bell.duplicate().take();
  }

  #removeBell(ring: Placed): void {
    if (ring.bell === undefined) return;
    this.loop.unwatch(ring.bell);
    ring.bell[Symbol.dispose]();
    ring.bell = undefined;
  }

  #hear(worker: RingWorker): void {
    for (const notice of worker.takeNotices()) this.#handle(worker, notice);
    this.#settle();
  }

  #handle(worker: RingWorker, notice: Notice): void {
    switch (notice.kind) {
      case "log":
        this.#logger[notice.level](notice.message, notice.details);
        return;
      case "broken": {
        // It may have been stopped, or stopped and started again, since: then its error is history.
        const ring = this.#rings.get(notice.index);
        if (ring?.worker === worker) ring.onError(errorOf(notice.fault));
        return;
      }
      case "bug":
        throw new Error(`a ring Worker ended on a bug: ${notice.stack}`);
    }
  }
}
