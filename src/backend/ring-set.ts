import { ProtocolError, StateError, VhuError } from "../errors.ts";
import { DEFAULT_DRAIN_TIMEOUT_MS } from "../limits.ts";
import type { Logger } from "../logger.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import type { EventLoop, Fd } from "../sys/mod.ts";
import { createDeviceRing, type InflightRegion } from "../vring/mod.ts";
import type { VringAddr } from "../wire/mod.ts";
import type { VhostUserDevice } from "./device.ts";
import { DeviceQueue, signalByFd } from "./device-queue.ts";
import type { FrontendClient } from "./frontend-client.ts";
import { LoopRingExecutor, type RingExecutor } from "./ring-executor.ts";
import type { Session } from "./session.ts";
import { checkVringAddress, logAddress, movesRing, vringLayout } from "./vring-layout.ts";
import { VringState } from "./vring-state.ts";
import { RingsInWorkers } from "./worker/rings-in-workers.ts";
import type { WorkerRings } from "./worker/worker-rings.ts";

/** What the rings need from the handler around them. */
export interface RingSurroundings {
  readonly session: Session;
  readonly memory: GuestMemory;
  /** What ring and buffer addresses mean. */
  readonly space: AddressSpace;
  readonly inflight: InflightRegion | undefined;
  readonly frontend: FrontendClient | undefined;
  /** Before a ring runs. @throws VhuError when it must not */
  beforeStart(): void;
  /** The first ring runs, the last one has stopped. */
  onWake(): void;
  onSuspend(): void;
  /** A translation is missing; rings go on when `retry` is called. */
  onMiss(): void;
}

/** The vrings of a device: what was set, which of them run, and how they start and stop. */
export class RingSet implements Disposable {
  readonly #rings: VringState[];
  readonly #executor: RingExecutor;
  readonly #inWorkers: RingsInWorkers;
  #paused = false;

  constructor(
    readonly device: VhostUserDevice,
    readonly loop: EventLoop,
    readonly around: RingSurroundings,
    readonly logger: Logger,
    readonly drainTimeoutMs = DEFAULT_DRAIN_TIMEOUT_MS,
    /** Where rings run, if the device has a program for them. Stays the caller's. */
    readonly workers?: WorkerRings | undefined,
  ) {
    this.#executor = new LoopRingExecutor(loop);
    this.#inWorkers = new RingsInWorkers(device, around, logger, drainTimeoutMs, workers, {
      callOf: (ring) => this.#callOf(ring),
      onBroken: (ring, error) => this.#break(ring, error),
    });
    this.#rings = Array.from({ length: device.maxQueues }, (_, index) => new VringState(index));
  }

  /** True while at least one ring is started. */
  get anyStarted(): boolean {
    return this.#rings.some((ring) => ring.started);
  }

  /** @throws ProtocolError for a ring that the device does not have */
  at(index: number, request: string): VringState {
    const ring = this.#rings[index];
    if (ring !== undefined) return ring;
    throw new ProtocolError(`is ${index}, the device has ${this.#rings.length} queues`, request, "index");
  }

  /** As `at`, for what may not change while the ring is started. */
  atStopped(index: number, request: string): VringState {
    const ring = this.at(index, request);
    if (ring.started)
      throw new StateError(`${request} on ring ${index}, which is started; GET_VRING_BASE stops it`);
    return ring;
  }

  setAddress(address: VringAddr): void {
    const ring = this.at(address.index, "SET_VRING_ADDR");
    const old = ring.address;
    if (!ring.started || old === undefined) checkVringAddress(this.around, address);
    else if (movesRing(old, address))
      throw new StateError(`SET_VRING_ADDR moves ring ${address.index}, which is started`);
    ring.address = address;
    if (!ring.isOpen || old === undefined || logAddress(old) === logAddress(address)) return;
    this.#suspend(ring);
    this.#resume(ring);
  }

  /** Starts the ring. Takes the fd. */
  setKick(index: number, fd: Fd | undefined): void {
    using owned = new DisposableStack();
    if (fd !== undefined) owned.use(fd);
    const ring = this.atStopped(index, "SET_VRING_KICK");
    this.around.beforeStart();
    const first = !this.anyStarted;
    ring.replace("kick", fd);
    ring.started = true;
    try {
      this.#open(ring);
      if (first) this.around.onWake();
      // Opened all the same, so that what the front-end set is checked and refused now.
      if (this.#paused) this.#close(ring);
      else this.#run(ring);
    } catch (error) {
      this.#close(ring);
      this.#setStopped(ring);
      throw error;
    }
    owned.move();
  }

  /** Takes the fd. */
  setCall(index: number, fd: Fd | undefined): void {
    const ring = this.#adopt(index, "SET_VRING_CALL", "call", fd);
    if (!ring.isOpen) return;
    const call = this.#callOf(ring);
    if (ring.isInWorker) this.workers?.setCall(index, this.#inWorkers.callOf(ring));
    else ring.queue!.call = call;
    // QEMU sends KICK before CALL on a migration's destination, and drops what came by the former fd in between: a driver that
    // was told of completions there would, with EVENT_IDX, never hear of more (seen). One interrupt too many does no harm.
    call?.();
  }

  /** Takes the fd. */
  setErr(index: number, fd: Fd | undefined): void {
    this.#adopt(index, "SET_VRING_ERR", "err", fd);
  }

  setEnabled(index: number, enabled: boolean): void {
    const ring = this.at(index, "SET_VRING_ENABLE");
    ring.enabled = enabled;
    if (ring.isInWorker) this.workers?.setEnabled(index, enabled);
    else this.#executor.setEnabled(index, enabled);
  }

  setAllEnabled(enabled: boolean): void {
    for (const ring of this.#rings) this.setEnabled(ring.index, enabled);
  }

  /** In-band kick. */
  kick(index: number): void {
    if (this.at(index, "VRING_KICK").isInWorker) this.workers?.kick(index);
    else this.#executor.kick(index);
  }

  /** Stops a ring after its requests in flight (unless `skipDrain`) and returns its base. */
  stop(index: number, skipDrain = false): number {
    const ring = this.at(index, "GET_VRING_BASE");
    this.#suspend(ring, skipDrain);
    if (ring.isLost) {
      throw new StateError(
        `where ring ${index} stands is not known, for its requests did not end in time: reset the device, or connect anew`,
      );
    }
    this.#retire(ring);
    return ring.initialBase(this.around.session.has("RING_PACKED"));
  }

  /** Stops all rings; they begin at their start again. Call and error fds stay: front-ends give them once. */
  reset(): void {
    for (const ring of this.#rings) {
      this.#suspend(ring);
      this.#retire(ring);
      ring.isLost = false;
      ring.base = undefined;
    }
  }

  /**
   * Stops what runs, changes the memory beneath it, and starts it again where it stood. `change` takes what is `given`.
   * @throws StateError when something does not stop
   */
  whilePaused<T>(change: () => T, given: Iterable<Disposable> = []): T {
    using refused = new DisposableStack();
    for (const item of given) refused.use(item);
    try {
      for (const ring of this.#rings) this.#suspend(ring);
      this.workers?.releaseMemory();
      if (this.workers?.isLate) throw new StateError("a ring Worker that uses guest memory does not answer");
      refused.move();
      return change();
    } finally {
      this.retry();
    }
  }

  /**
   * Stops the device's work on all rings, those that start later, too, until `resumeAll`. The front-end sees nothing of it
   * but requests that take long. @throws StateError when a ring did not drain; all go on then
   */
  pauseAll(): void {
    this.#paused = true;
    try {
      for (const ring of this.#rings) this.#suspend(ring);
    } catch (error) {
      this.resumeAll();
      throw error;
    }
  }

  resumeAll(): void {
    this.#paused = false;
    this.retry();
  }

  /** Goes on with what was paused or waited for a translation. */
  retry(): void {
    if (this.#paused) return;
    for (const ring of this.#rings) {
      if (!ring.started || ring.broken || ring.isInWorker) continue;
      if (ring.queue !== undefined) this.#executor.kick(ring.index);
      else this.#resume(ring);
    }
  }

  /** Memory, dirty log or F_LOG_ALL changed while rings run: before this returns, what runs in Workers knows. */
  refreshWorkers(): void {
    if (!this.#rings.some((ring) => ring.isInWorker)) return;
    this.workers?.setMemory(this.around.memory);
    this.workers?.setLogging(this.around.session.has("LOG_ALL"));
  }

  /** The front-end is gone: waits for what is in flight, since that uses the memory, and drops everything. */
  [Symbol.dispose](): void {
    for (const ring of this.#rings) {
      try {
        this.#suspend(ring);
      } catch (error) {
        if (!(error instanceof VhuError)) throw error;
        this.logger.warn(`ring ${ring.index}: ${error.message}`);
        // The executor has let go of it: now the device must.
        if (!ring.isInWorker) this.#suspend(ring);
        else this.afterWork(() => this.device.stopQueue(ring.index));
      }
      ring[Symbol.dispose]();
    }
    this.workers?.releaseMemory();
    if (!this.workers?.isLate) return;
    this.logger.error(
      "a ring Worker does not come back: what it uses is kept, and no ring runs until it does",
    );
    this.afterWork(() => this.logger.info("the ring Worker is back: what it used is given up"));
  }

  /** Calls back when no Worker uses what it was given: at once, unless one is late. */
  afterWork(callback: () => void): void {
    if (this.workers === undefined) callback();
    else this.workers.whenBack(callback);
  }

  #retire(ring: VringState): void {
    ring.broken = false;
    if (ring.started) this.#setStopped(ring);
  }

  #adopt(index: number, request: string, which: "call" | "err", fd: Fd | undefined): VringState {
    using owned = new DisposableStack();
    if (fd !== undefined) owned.use(fd);
    const ring = this.at(index, request);
    owned.move();
    ring.replace(which, fd);
    return ring;
  }

  #setStopped(ring: VringState): void {
    ring.started = false;
    ring.replace("kick", undefined);
    if (!this.anyStarted) this.around.onSuspend();
  }

  /** Opens the ring, or leaves it waiting when its addresses are not known yet. */
  #open(ring: VringState): void {
    const { memory, space, inflight, session } = this.around;
    const layout = vringLayout(this.around, ring);
    if (this.#inWorkers.areUsed) return;
    try {
      const deviceRing = createDeviceRing(memory, space, layout, {
        inflight: inflight?.queue(ring.index),
        logging: () => session.has("LOG_ALL"),
      });
      ring.queue = new DeviceQueue(ring.index, ring.num, deviceRing, memory, space);
      ring.queue.call = this.#callOf(ring);
    } catch (error) {
      if (!space.missPending) throw error;
      this.around.onMiss();
    }
  }

  /** Gives an open ring to the device. */
  #run(ring: VringState): void {
    if (this.#inWorkers.areUsed) {
      this.#inWorkers.run(ring);
      return;
    }
    const { queue } = ring;
    if (queue === undefined) return;
    queue.wake = () => this.#executor.kick(ring.index);
    const { index, size } = queue;
    const { base, toResubmit } = queue.ring;
    this.logger.debug("queue starts", { index, size, base, toResubmit, enabled: ring.enabled });
    const runner = this.device.startQueue(queue);
    const checked = {
      ...(runner.drain === undefined ? {} : { drain: () => runner.drain!() }),
      ...(runner.discard === undefined ? {} : { discard: () => runner.discard!() }),
      onKick: () => {
        runner.onKick();
        if (this.around.space.missPending) this.around.onMiss();
      },
    };
    try {
      this.#executor.start({
        queue,
        runner: checked,
        kick: ring.kick,
        enabled: ring.enabled,
        polled: ring.kick === undefined && !this.around.session.hasProtocol("INBAND_NOTIFICATIONS"),
        onError: (error) => this.#break(ring, error),
      });
    } catch (error) {
      this.#executor.stop(ring.index, "skip");
      this.device.stopQueue(ring.index);
      throw error;
    }
  }

  /** Stops the device's work on a ring, which remembers where it stood. */
  #suspend(ring: VringState, skipDrain = false): void {
    if (ring.isInWorker) {
      this.#inWorkers.stop(ring, skipDrain);
      return;
    }
    const { queue } = ring;
    if (queue === undefined) return;
    this.#executor.stop(ring.index, skipDrain ? "skip" : { timeoutMs: this.drainTimeoutMs });
    this.device.stopQueue(ring.index);
    ring.base = queue.ring.base;
    this.logger.debug("queue stops", { index: ring.index, base: ring.base, inFlight: queue.ring.inFlight });
    this.#close(ring);
  }

  #close(ring: VringState): void {
    ring.queue?.ring[Symbol.dispose]();
    ring.queue = undefined;
  }

  /** Goes on with a ring that was suspended. One that cannot is out of service: nobody waits for this answer. */
  #resume(ring: VringState): void {
    if (ring.broken) return;
    try {
      this.#open(ring);
      this.#run(ring);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#close(ring);
      this.#break(ring, error);
    }
  }

  #callOf(ring: VringState): (() => void) | undefined {
    if (ring.call !== undefined) return signalByFd(ring.call, this.#onSignalError);
    if (!this.around.session.hasProtocol("INBAND_NOTIFICATIONS")) return undefined;
    return () => this.around.frontend?.vringCall(ring.index);
  }

  #break(ring: VringState, error: VhuError): void {
    this.logger.error(`queue ${ring.index} is out of service until it is stopped: ${error.message}`, {
      code: error.code,
    });
    ring.broken = true;
    this.#executor.fail(ring.index);
    if (ring.err !== undefined) signalByFd(ring.err, this.#onSignalError)();
    else if (this.around.session.hasProtocol("INBAND_NOTIFICATIONS"))
      this.around.frontend?.vringErr(ring.index);
  }

  readonly #onSignalError = (error: VhuError): void => {
    this.logger.warn(`a call or error fd of the front-end's cannot be signalled: ${error.message}`);
  };
}
