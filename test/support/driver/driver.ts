import {
  baseFeatures,
  type DeviceType,
  type FrontendOptions,
  Interrupt,
  VhostUserFrontend,
} from "../../../src/frontend/mod.ts";
import { Deadline, EventLoop, POLL, type UnixSocket, waitReadySync } from "../../../src/sys/mod.ts";
import type { DriverPiece, UsedChain } from "../../../src/vring/mod.ts";
import { virtioFeature } from "../../../src/wire/mod.ts";
import type { DriverMemory } from "./driver-memory.ts";
import { DriverQueue, type DriverQueueState } from "./driver-queue.ts";

export interface DriverOptions {
  readonly type: DeviceType;
  readonly queueCount: number;
  readonly queueSize?: number;
  /** Device feature bits that the driver understands. */
  readonly deviceFeatures?: bigint;
  /** Which of VERSION_1, INDIRECT_DESC, EVENT_IDX and RING_PACKED to use, where offered. */
  readonly ringFeatures?: bigint;
  /** Descriptors of an indirect table, where INDIRECT_DESC is used. */
  readonly indirectPieces?: number;
  readonly frontend?: Partial<FrontendOptions>;
  /** Go on from a saved driver: same options, same memory. */
  readonly state?: DriverState;
}

/** Plain data. Chains that the device had not given back are named by number. */
export interface DriverState {
  readonly features: bigint;
  readonly queues: readonly DriverQueueState<number>[];
}

/** How long a request may take; a loaded machine needs some. */
const REQUEST_TIMEOUT_MS = 30_000;

/** A virtio driver over our front-end: the rings of a device, requests in, completions out; in line, with a deadline. */
export class Driver implements Disposable {
  readonly loop = new EventLoop();
  readonly interrupt = new Interrupt();
  readonly frontend: VhostUserFrontend;
  readonly features: bigint;
  readonly queues: readonly DriverQueue<number>[];
  isLost = false;
  #nextToken = 1;

  /** Takes the socket. Nothing is started: see `start`. */
  constructor(
    socket: UnixSocket,
    readonly memory: DriverMemory,
    options: DriverOptions,
  ) {
    const { queueCount, queueSize = 128, state, ringFeatures = baseFeatures } = options;
    this.frontend = new VhostUserFrontend(socket, this.loop, {
      type: options.type,
      baseFeatures: ringFeatures,
      onDisconnect: () => {
        this.isLost = true;
      },
      ...options.frontend,
    });
    this.features =
      state?.features ?? this.frontend.features & (ringFeatures | (options.deviceFeatures ?? 0n));
    const has = (feature: bigint) => (this.features & feature) !== 0n;
    const queueOptions = {
      size: queueSize,
      packed: has(virtioFeature.RING_PACKED),
      eventIdx: has(virtioFeature.RING_EVENT_IDX),
      indirectPieces: has(virtioFeature.RING_INDIRECT_DESC) ? (options.indirectPieces ?? 0) : 0,
    };
    this.queues = Array.from(
      { length: queueCount },
      (_, index) => new DriverQueue<number>(index, memory, queueOptions, state?.queues[index]),
    );
  }

  /** Acknowledges the features and starts the queues where they stand. */
  start(): void {
    this.frontend.ackFeatures(this.features);
    this.wake();
  }

  wake(): void {
    const setups = this.queues.map((queue) => queue.setup);
    this.frontend.wake(this.memory.regions, this.interrupt, setups);
  }

  /** Stops the queues; each then knows its base, and nothing that the device took is under way. */
  sleep(timeoutMs = REQUEST_TIMEOUT_MS): void {
    const bases = this.frontend.sleep();
    const deadline = new Deadline(timeoutMs);
    for (const queue of this.queues) {
      queue.base = bases.get(queue.index) ?? queue.base;
      queue.settle(deadline);
    }
  }

  /** Offers a chain without a kick and returns its token, or undefined when the ring is full. */
  submit(queueIndex: number, pieces: readonly DriverPiece[]): number | undefined {
    const token = this.#nextToken;
    if (!this.#queue(queueIndex).add(pieces, token)) return undefined;
    this.#nextToken++;
    return token;
  }

  /** Kicks the device for what was submitted, if it wants that. */
  notify(queueIndex: number): void {
    this.#queue(queueIndex).notify();
  }

  /** The next completion of a queue, waiting in line for its interrupt. Throws when none comes in time. */
  wait(queueIndex: number, timeoutMs = REQUEST_TIMEOUT_MS): UsedChain<number> {
    const { ring } = this.#queue(queueIndex);
    const call = this.interrupt.callFor(queueIndex);
    const deadline = new Deadline(timeoutMs);
    for (;;) {
      const used = ring.popUsed();
      if (used !== undefined) return used;
      if (ring.enableInterrupts()) continue;
      if (waitReadySync(call, POLL.IN, deadline) === 0) {
        throw new Error(`queue ${queueIndex}: no completion within ${timeoutMs} ms`);
      }
      this.interrupt.take(queueIndex);
    }
  }

  /** One request from its submission to its completion; returns what the device says that it wrote. */
  run(queueIndex: number, pieces: readonly DriverPiece[], timeoutMs?: number): number {
    const token = this.submit(queueIndex, pieces);
    if (token === undefined) throw new Error(`queue ${queueIndex} is full`);
    this.notify(queueIndex);
    const used = this.wait(queueIndex, timeoutMs);
    if (used.token !== token) throw new Error(`completion ${used.token} came for request ${token}`);
    return used.writtenBytes;
  }

  exportState(): DriverState {
    return { features: this.features, queues: this.queues.map((queue) => queue.exportState()) };
  }

  [Symbol.dispose](): void {
    this.frontend[Symbol.dispose]();
    for (const queue of this.queues) queue[Symbol.dispose]();
    this.interrupt[Symbol.dispose]();
    this.loop[Symbol.dispose]();
  }

  #queue(index: number): DriverQueue<number> {
    const queue = this.queues[index];
    if (queue === undefined) throw new Error(`the driver has ${this.queues.length} queues`);
    return queue;
  }
}
