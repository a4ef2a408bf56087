import { ProtocolError, StateError, VhuError } from "../errors.ts";
import { DEFAULT_DRAIN_TIMEOUT_MS } from "../limits.ts";
import type { Logger } from "../logger.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import { type EventLoop, type Fd, signalEvent } from "../sys/mod.ts";
import { createDeviceRing, type InflightRegion, type RingError, type RingLayout } from "../vring/mod.ts";
import type { VringAddr } from "../wire/mod.ts";
import type { VhostUserDevice } from "./device.ts";
import { callByFd, DeviceQueue } from "./device-queue.ts";
import type { FrontendClient } from "./frontend-client.ts";
import { LoopRingExecutor, type RingExecutor } from "./ring-executor.ts";
import type { Session } from "./session.ts";
import { VringState } from "./vring-state.ts";

/** VHOST_VRING_F_LOG: the used ring is to be logged. */
const ADDRESS_FLAG_LOG = 1;

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

  constructor(
    readonly device: VhostUserDevice,
    readonly loop: EventLoop,
    readonly around: RingSurroundings,
    readonly logger: Logger,
    readonly drainTimeoutMs = DEFAULT_DRAIN_TIMEOUT_MS,
  ) {
    this.#executor = new LoopRingExecutor(loop);
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
    if (ring.started) throw new StateError(`${request} on ring ${index}, which is started; GET_VRING_BASE stops it`);
    return ring;
  }

  setAddress(address: VringAddr): void {
    const ring = this.at(address.index, "SET_VRING_ADDR");
    const old = ring.address;
    if (ring.started && old !== undefined) {
      // A migration turns the logging of a running ring on and off; it may not move the ring.
      const moved =
        old.descriptor !== address.descriptor || old.available !== address.available || old.used !== address.used;
      if (moved) throw new StateError(`SET_VRING_ADDR moves ring ${address.index}, which is started`);
    } else this.#checkAddress(address);
    ring.address = address;
    if (ring.queue !== undefined && old?.log !== address.log) this.#restart(ring);
  }

  setKick(index: number, fd: Fd | undefined): void {
    const ring = this.at(index, "SET_VRING_KICK");
    if (ring.started) {
      fd?.[Symbol.dispose]();
      throw new StateError(`SET_VRING_KICK replaces the kick of ring ${index}, which is started`);
    }
    ring.replace("kick", fd);
    const first = !this.anyStarted;
    try {
      this.around.beforeStart();
      this.#tryStart(ring);
    } catch (error) {
      ring.replace("kick", undefined);
      throw error;
    }
    ring.started = true;
    if (first) this.around.onWake();
    if (ring.queue !== undefined) this.#run(ring);
  }

  setCall(index: number, fd: Fd | undefined): void {
    const ring = this.at(index, "SET_VRING_CALL");
    ring.replace("call", fd);
    if (ring.queue !== undefined) ring.queue.call = this.#callOf(ring);
  }

  setErr(index: number, fd: Fd | undefined): void {
    this.at(index, "SET_VRING_ERR").replace("err", fd);
  }

  setEnabled(index: number, enabled: boolean): void {
    this.at(index, "SET_VRING_ENABLE").enabled = enabled;
    this.#executor.setEnabled(index, enabled);
  }

  /** In-band kick. */
  kick(index: number): void {
    this.at(index, "VRING_KICK");
    this.#executor.kick(index);
  }

  /** Stops a ring after its requests in flight (unless `skipDrain`) and returns its base. */
  stop(index: number, skipDrain = false): number {
    const ring = this.at(index, "GET_VRING_BASE");
    const packed = this.around.session.has("RING_PACKED");
    const base = this.#halt(ring, skipDrain) ?? ring.initialBase(packed);
    ring.base = base;
    if (!ring.started) return base;
    ring.started = false;
    ring.replace("kick", undefined);
    if (!this.anyStarted) this.around.onSuspend();
    return base;
  }

  stopAll(): void {
    for (const ring of this.#rings) this.stop(ring.index);
  }

  disableAll(): void {
    for (const ring of this.#rings) this.setEnabled(ring.index, false);
  }

  /** Stops what runs, changes the memory beneath it, and starts it again where it stood. */
  whilePaused<T>(change: () => T): T {
    const paused = this.#rings.filter((ring) => ring.queue !== undefined);
    for (const ring of paused) ring.base = this.#halt(ring, false);
    try {
      return change();
    } finally {
      for (const ring of paused) {
        this.#tryStart(ring);
        this.#run(ring);
      }
    }
  }

  /** Tries what waited for a translation. */
  retry(): void {
    for (const ring of this.#rings) {
      if (!ring.started) continue;
      if (ring.queue !== undefined) this.#executor.kick(ring.index);
      else {
        this.#tryStart(ring);
        this.#run(ring);
      }
    }
  }

  /** Drops everything without waiting: the front-end is gone. */
  [Symbol.dispose](): void {
    for (const ring of this.#rings) {
      try {
        this.#halt(ring, false);
      } catch (error) {
        if (!(error instanceof VhuError)) throw error;
        this.logger.warn(`ring ${ring.index}: ${error.message}`);
      }
      ring[Symbol.dispose]();
    }
  }

  /** Opens the ring and gives it to the device, or leaves it waiting when its addresses are not known yet. */
  #tryStart(ring: VringState): void {
    const { memory, space, inflight } = this.around;
    const layout = this.#layout(ring);
    try {
      const deviceRing = createDeviceRing(memory, space, layout, {
        inflight: inflight?.queue(ring.index),
        logging: () => this.#isLogging(ring),
      });
      ring.queue = new DeviceQueue(ring.index, ring.num, deviceRing, memory);
      ring.queue.call = this.#callOf(ring);
    } catch (error) {
      if (!space.missPending) throw error;
      this.around.onMiss();
    }
  }

  #run(ring: VringState): void {
    const { queue } = ring;
    if (queue === undefined) return;
    queue.wake = () => this.#executor.kick(ring.index);
    const runner = this.device.startQueue(queue);
    const checked = {
      ...(runner.drain === undefined ? {} : { drain: () => runner.drain!() }),
      onKick: () => {
        runner.onKick();
        if (this.around.space.missPending) this.around.onMiss();
      },
    };
    this.#executor.start({
      queue,
      runner: checked,
      kick: ring.kick,
      enabled: ring.enabled,
      polled: ring.kick === undefined && !this.around.session.hasProtocol("INBAND_NOTIFICATIONS"),
      onError: (error) => this.#onRingError(ring, error),
    });
  }

  /** Stops the device's work on a ring; returns its base, or undefined when it did not run. */
  #halt(ring: VringState, skipDrain: boolean): number | undefined {
    const { queue } = ring;
    if (queue === undefined) return undefined;
    this.#executor.stop(ring.index, skipDrain ? "skip" : { timeoutMs: this.drainTimeoutMs });
    this.device.stopQueue(ring.index);
    const { base } = queue.ring;
    queue.ring[Symbol.dispose]();
    ring.queue = undefined;
    return base;
  }

  #restart(ring: VringState): void {
    ring.base = this.#halt(ring, false);
    this.#tryStart(ring);
    this.#run(ring);
  }

  #layout(ring: VringState): RingLayout {
    const { session } = this.around;
    if (ring.num === 0 || ring.address === undefined) {
      throw new StateError(`ring ${ring.index} cannot start: SET_VRING_NUM and SET_VRING_ADDR must come first`);
    }
    const { descriptor, available, used, log } = ring.address;
    const packed = session.has("RING_PACKED");
    return {
      size: ring.num,
      descriptor: this.#ringAddress(descriptor, "descriptor"),
      available: this.#ringAddress(available, "available"),
      used: this.#ringAddress(used, "used"),
      logAddress: log,
      packed,
      eventIdx: session.has("RING_EVENT_IDX"),
      indirect: session.has("RING_INDIRECT_DESC"),
      base: ring.initialBase(packed),
    };
  }

  /** SET_VRING_ADDR names user addresses; with ACCESS_PLATFORM I/O virtual ones, with GPA_ADDRESSES guest ones. */
  #ringAddress(address: number, field: string): number {
    const { session, memory } = this.around;
    if (session.has("ACCESS_PLATFORM") || session.hasProtocol("GPA_ADDRESSES")) return address;
    const guest = memory.userToGuest(address, 1);
    if (guest < 0) throw new ProtocolError("is in no memory region", "SET_VRING_ADDR", field);
    return guest;
  }

  #checkAddress(address: VringAddr): void {
    // Memory may legally come after the addresses: only what is known already is looked at, the rest at the start.
    if (this.around.memory.regions.length === 0 || this.around.session.has("ACCESS_PLATFORM")) return;
    this.#ringAddress(address.descriptor, "descriptor");
    this.#ringAddress(address.available, "available");
    this.#ringAddress(address.used, "used");
  }

  #isLogging(ring: VringState): boolean {
    return this.around.session.has("LOG_ALL") && ((ring.address?.flags ?? 0) & ADDRESS_FLAG_LOG) !== 0;
  }

  #callOf(ring: VringState): (() => void) | undefined {
    if (ring.call !== undefined) return callByFd(ring.call);
    if (!this.around.session.hasProtocol("INBAND_NOTIFICATIONS")) return undefined;
    return () => this.around.frontend?.vringCall(ring.index);
  }

  #onRingError(ring: VringState, error: RingError): void {
    this.logger.error(`queue ${ring.index} is out of service until it is stopped: ${error.message}`);
    this.#executor.fail(ring.index);
    if (ring.err !== undefined) signalEvent(ring.err);
    else if (this.around.session.hasProtocol("INBAND_NOTIFICATIONS")) this.around.frontend?.vringErr(ring.index);
  }
}
