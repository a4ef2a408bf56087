import { StateError, VhuError } from "../../errors.ts";
import type { GuestMemory } from "../../memory/mod.ts";
import { drainEvent, type Epoll, Fd, POLL, signalEvent } from "../../sys/mod.ts";
import { AliasedInflight, createDeviceRing } from "../../vring/mod.ts";
import { DeviceQueue } from "../device-queue.ts";
import type { StartOrder } from "./messages.ts";
import type { RingRunner } from "./ring-program.ts";

/** What a ring needs of the Worker around it. */
export interface WorkerSurroundings {
  readonly memory: GuestMemory;
  readonly epoll: Epoll;
  /** F_LOG_ALL is set. */
  readonly logging: boolean;
  createRunner(queue: DeviceQueue, parameters: unknown): RingRunner;
  onSignalError(index: number, error: VhuError): void;
}

/** Two tokens of epoll for each ring. */
export const TOKENS_PER_RING = 2;
const KICK = 0;
const COMPLETIONS = 1;

/** One ring in its Worker. Owns the fds, the views of the ring, and the runner. */
export class WorkerRing implements Disposable {
  readonly index: number;
  readonly queue: DeviceQueue;
  readonly runner: RingRunner;
  isEnabled = false;
  hasFailed = false;
  readonly #around: WorkerSurroundings;
  readonly #owned: DisposableStack;
  readonly #kick: Fd | undefined;
  #call: Fd | undefined;
  #isKickWatched = false;

  /** @throws VhuError when the ring cannot be opened or the program refuses it; everything is closed then */
  constructor(order: StartOrder, around: WorkerSurroundings) {
    this.index = order.index;
    this.#around = around;
    using owned = new DisposableStack();
    this.#kick = adopt(order.kickFd, `kick of ring ${order.index}`);
    if (this.#kick !== undefined) owned.use(this.#kick);
    this.#call = adopt(order.callFd, `call of ring ${order.index}`);
    owned.defer(() => this.#call?.[Symbol.dispose]());
    const inflight = order.inflight && owned.use(new AliasedInflight(order.inflight));
    const ring = createDeviceRing(around.memory, around.memory, order.layout, {
      inflight: inflight?.queue,
      logging: () => around.logging,
    });
    owned.use(ring);
    this.queue = new DeviceQueue(order.index, order.layout.size, ring, around.memory);
    this.queue.call = this.#signal;
    this.runner = owned.use(around.createRunner(this.queue, order.parameters));
    const { completions } = this.runner;
    if (completions !== undefined) {
      around.epoll.add(completions, POLL.IN, this.#token(COMPLETIONS));
      owned.defer(() => around.epoll.remove(completions));
    }
    this.enable(order.enabled);
    this.#owned = owned.move();
  }

  /** It has no kick fd: nothing tells when something came in. */
  get isPolled(): boolean {
    return this.#kick === undefined;
  }

  get isActive(): boolean {
    return this.isEnabled && !this.hasFailed;
  }

  enable(isEnabled: boolean): void {
    this.isEnabled = isEnabled;
    this.#watchKick(this.isActive);
  }

  /** Takes it out of service until it is stopped. */
  fail(): void {
    this.hasFailed = true;
    this.#watchKick(false);
  }

  replaceCall(callFd: number | undefined): void {
    this.#call?.[Symbol.dispose]();
    this.#call = adopt(callFd, `call of ring ${this.index}`);
  }

  /** epoll found the fd with this token ready. */
  onReady(token: number, ready: number): void {
    const kick = this.#kick;
    if (kick === undefined || token % TOKENS_PER_RING !== KICK) return;
    // A pipe whose writers are gone stays ready for ever and will never kick again.
    if (!drainEvent(kick) && (ready & (POLL.HUP | POLL.ERR)) !== 0) this.#watchKick(false);
  }

  /** True when nothing that was popped is worked on any more. That a broken ring fails is known already. */
  drain(): boolean {
    try {
      return this.runner.drain?.() ?? true;
    } catch (error) {
      if (!(error instanceof VhuError && this.hasFailed)) throw error;
      return true;
    }
  }

  [Symbol.dispose](): void {
    this.#watchKick(false);
    this.#owned[Symbol.dispose]();
  }

  #token(which: number): number {
    return this.index * TOKENS_PER_RING + which;
  }

  #watchKick(isWatched: boolean): void {
    const kick = this.#kick;
    if (kick === undefined || isWatched === this.#isKickWatched) return;
    if (isWatched) this.#around.epoll.add(kick, POLL.IN, this.#token(KICK));
    else this.#around.epoll.remove(kick);
    this.#isKickWatched = isWatched;
  }

  readonly #signal = (): void => {
    const call = this.#call;
    if (call === undefined) return;
    try {
      signalEvent(call);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      // The front-end sent what cannot be written: told once, and it hurts nobody else.
      this.replaceCall(undefined);
      this.#around.onSignalError(this.index, error);
    }
  };
}

function adopt(number: number | undefined, label: string): Fd | undefined {
  return number === undefined ? undefined : new Fd(number, label);
}

/** Where an order names a ring that this Worker does not run. */
export function unknownRing(index: number): StateError {
  return new StateError(`ring ${index} does not run in this Worker`);
}
