import { StateError, VhuError } from "../../errors.ts";
import { DirtyLog, GuestMemory } from "../../memory/mod.ts";
import { Deadline, drainEvent, Epoll, type Fd, POLL, yieldProcessor } from "../../sys/mod.ts";
import type { DeviceQueue } from "../device-queue.ts";
import type { Order, StartOrder } from "./messages.ts";
import type { RingRunner } from "./ring-program.ts";
import { SpinPolicy } from "./spin-policy.ts";
import { TOKENS_PER_RING, unknownRing, WorkerRing, type WorkerSurroundings } from "./worker-ring.ts";

/** How a Worker hears from the control thread and answers it. */
export interface WorkerMail {
  /** Readable when an order may have been posted. */
  readonly orders: Fd;
  readonly hasOrder: boolean;
  take(): Order;
  done(value: number): void;
  failed(error: VhuError): void;
  broken(index: number, error: VhuError): void;
  onSignalError(index: number, error: VhuError): void;
}

/** Above the tokens of 256 rings. */
const ORDERS_TOKEN = 0x1000;
/** How often a ring without a kick fd is looked at. */
const POLL_INTERVAL_MS = 1;
/** How long one wait of a draining ring may last: what it waits for may lie in another fd's shadow. */
const DRAIN_SLICE_MS = 10;

/**
 * The loop of a ring Worker: polls its rings for as long as they have work, spins for a bounded time, then sleeps in epoll
 * until a kick, a completion or an order. Orders are taken between two polls, so what they change, no request sees half.
 */
export class RingLoop implements WorkerSurroundings, Disposable {
  readonly memory = new GuestMemory();
  readonly epoll = new Epoll();
  logging = false;
  readonly #rings = new Map<number, WorkerRing>();
  #active: readonly WorkerRing[] = [];
  #ended = false;

  constructor(
    readonly mail: WorkerMail,
    readonly spin: SpinPolicy,
    readonly createRunner: (queue: DeviceQueue, parameters: unknown) => RingRunner,
  ) {
    this.epoll.add(mail.orders, POLL.IN, ORDERS_TOKEN);
  }

  /** Until an "exit" order. */
  run(): void {
    while (!this.#ended) {
      if (this.mail.hasOrder) this.#obey(this.mail.take());
      else if (!this.#pollAll() && !this.#spinOn()) this.#sleep();
    }
  }

  onSignalError(index: number, error: VhuError): void {
    this.mail.onSignalError(index, error);
  }

  [Symbol.dispose](): void {
    for (const ring of this.#rings.values()) ring[Symbol.dispose]();
    this.memory.dirtyLog?.[Symbol.dispose]();
    this.memory[Symbol.dispose]();
    this.epoll[Symbol.dispose]();
  }

  #pollAll(): boolean {
    let found = false;
    const rings = this.#active;
    for (let i = 0; i < rings.length; i++) if (this.#poll(rings[i]!)) found = true;
    return found;
  }

  #poll(ring: WorkerRing): boolean {
    try {
      return ring.runner.poll();
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      ring.fail();
      this.#listActive();
      this.mail.broken(ring.index, error);
      return false;
    }
  }

  #spinOn(): boolean {
    const { spin } = this;
    if (this.#active.length === 0 || !spin.begin()) return false;
    do {
      for (let i = 0; i < SpinPolicy.POLLS_PER_LOOK; i++) {
        if (this.mail.hasOrder || this.#pollAll()) return spin.found();
      }
      // The driver may share the core, and is then all that we wait for.
      yieldProcessor();
    } while (spin.goesOn());
    return false;
  }

  #sleep(): void {
    const rings = this.#active;
    let more = false;
    let timeoutMs = -1;
    for (let i = 0; i < rings.length; i++) {
      const ring = rings[i]!;
      if (ring.queue.ring.enableNotifications() && !ring.runner.isFull) more = true;
      if (ring.isPolled) timeoutMs = POLL_INTERVAL_MS;
    }
    if (!more) this.#wait(timeoutMs);
    for (let i = 0; i < rings.length; i++) rings[i]!.queue.ring.disableNotifications();
  }

  #wait(timeoutMs: number): void {
    const count = this.epoll.wait(timeoutMs);
    for (let i = 0; i < count; i++) {
      const token = this.epoll.token(i);
      if (token === ORDERS_TOKEN) drainEvent(this.mail.orders);
      else this.#rings.get(Math.floor(token / TOKENS_PER_RING))?.onReady(token, this.epoll.ready(i));
    }
  }

  #obey(order: Order): void {
    try {
      this.mail.done(this.#execute(order));
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.mail.failed(error);
    }
  }

  #execute(order: Order): number {
    switch (order.kind) {
      case "start":
        return this.#start(order);
      case "stop":
        return this.#stop(order.index, order.drainMs);
      case "memory": {
        this.memory.alias(order.regions);
        const old = this.memory.dirtyLog;
        this.memory.dirtyLog = order.dirtyLog && DirtyLog.alias(order.dirtyLog);
        old?.[Symbol.dispose]();
        return 0;
      }
      case "logging":
        this.logging = order.isOn;
        return 0;
      case "call":
        this.#at(order.index).replaceCall(order.callFd);
        return 0;
      case "enable":
        this.#at(order.index).enable(order.enabled);
        this.#listActive();
        return 0;
      case "fail":
        this.#rings.get(order.index)?.fail();
        this.#listActive();
        return 0;
      case "exit":
        this.#ended = true;
        return 0;
    }
  }

  #at(index: number): WorkerRing {
    const ring = this.#rings.get(index);
    if (ring === undefined) throw unknownRing(index);
    return ring;
  }

  #start(order: StartOrder): number {
    const ring = new WorkerRing(order, this);
    this.#rings.set(ring.index, ring);
    ring.queue.ring.disableNotifications();
    this.#listActive();
    return 0;
  }

  /** Ends the ring's requests, then the ring. Returns its base. */
  #stop(index: number, drainMs: number | undefined): number {
    using ring = this.#at(index);
    this.#rings.delete(index);
    this.#listActive();
    ring.enable(false);
    if (drainMs !== undefined) this.#drain(ring, new Deadline(drainMs));
    return ring.queue.ring.base;
  }

  #drain(ring: WorkerRing, deadline: Deadline): void {
    while (!ring.drain()) {
      if (deadline.expired) {
        throw new StateError(`queue ${ring.index} did not drain within ${deadline.timeoutMs} ms`);
      }
      this.#wait(Math.min(DRAIN_SLICE_MS, deadline.pollTimeoutMs >>> 0));
    }
  }

  #listActive(): void {
    this.#active = [...this.#rings.values()].filter((ring) => ring.isActive);
  }
}
