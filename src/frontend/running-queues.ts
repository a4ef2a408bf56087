import { StateError } from "../errors.ts";
import { signalEvent } from "../sys/mod.ts";
import type { BackendClient, InflightBuffer, SharedRegion } from "./backend-client.ts";
import type { Interrupt } from "./interrupt.ts";
import type { QueueSetup } from "./virtio-device.ts";

/** VHOST_VRING_F_LOG. */
const ADDRESS_FLAG_LOG = 1;

/** Starts and stops a back-end's rings, and keeps the inflight buffer over their lives. */
export class RunningQueues implements Disposable {
  #running: readonly QueueSetup[] = [];
  #memory: readonly SharedRegion[] = [];
  #isLogging = false;
  #inflight: InflightBuffer | undefined;

  constructor(
    readonly client: BackendClient,
    /** SET_VRING_ENABLE exists only with protocol features. */
    readonly hasEnable: boolean,
    readonly hasInflight: boolean,
  ) {}

  get isRunning(): boolean {
    return this.#running.length > 0;
  }

  get inflight(): InflightBuffer | undefined {
    return this.#inflight;
  }

  /** Takes up the inflight buffer of a connection that broke; the fd becomes this object's. */
  adoptInflight(inflight: InflightBuffer): void {
    this.#inflight?.fd[Symbol.dispose]();
    this.#inflight = inflight;
  }

  /** Whether the used rings are logged: those that run, and those that start later. */
  setLogging(isLogging: boolean): void {
    this.#isLogging = isLogging;
    for (const queue of this.#running) this.#setAddress(queue);
  }

  start(memory: readonly SharedRegion[], interrupt: Interrupt, queues: readonly QueueSetup[]): void {
    if (this.hasInflight && queues.length > 0) this.#shareInflight(queues);
    // What was started before a failure must be stopped again, so it counts as running from its first message on.
    const started: QueueSetup[] = [];
    this.#running = started;
    this.#memory = memory;
    for (const queue of queues) {
      started.push(queue);
      this.#start(interrupt, queue);
    }
  }

  /** Disables and stops every ring; returns the bases. */
  stop(): ReadonlyMap<number, number> {
    const bases = new Map<number, number>();
    for (const { index } of this.#running) {
      if (this.hasEnable) this.client.setVringEnable(index, false);
      bases.set(index, this.client.getVringBase(index));
    }
    this.#running = [];
    return bases;
  }

  /** Rings that begin anew need a fresh buffer: what an old one says of positions would be wrong. */
  forgetInflight(): void {
    this.#inflight?.fd[Symbol.dispose]();
    this.#inflight = undefined;
  }

  [Symbol.dispose](): void {
    this.forgetInflight();
  }

  #start(interrupt: Interrupt, queue: QueueSetup): void {
    const { index } = queue;
    this.client.setVringNum(index, queue.size);
    this.#setAddress(queue);
    this.client.setVringBase(index, queue.base);
    this.client.setVringCall(index, interrupt.callFor(queue.vector));
    this.client.setVringKick(index, queue.kick);
    if (this.hasEnable) this.client.setVringEnable(index, true);
    // What was offered before the ring stopped may wait for a kick that went to an fd of another process: most back-ends
    // look into a ring only when they are kicked (tried: qemu-storage-daemon), and the spec asks front-ends for this one.
    signalEvent(queue.kick);
  }

  #setAddress({ index, descriptor, available, used }: QueueSetup): void {
    this.client.setVringAddr({
      index,
      flags: this.#isLogging ? ADDRESS_FLAG_LOG : 0,
      descriptor: userAddress(this.#memory, descriptor),
      available: userAddress(this.#memory, available),
      used: userAddress(this.#memory, used),
      log: used,
    });
  }

  #shareInflight(queues: readonly QueueSetup[]): void {
    const numQueues = Math.max(...queues.map(({ index }) => index)) + 1;
    const queueSize = Math.max(...queues.map(({ size }) => size));
    const old = this.#inflight?.layout;
    if (old === undefined || old.numQueues < numQueues || old.queueSize !== queueSize) {
      this.adoptInflight(this.client.getInflightFd(numQueues, queueSize));
    }
    this.client.setInflightFd(this.#inflight!);
  }
}

/** vhost-user names ring addresses as the front-end's own virtual addresses. */
function userAddress(memory: readonly SharedRegion[], guestAddress: number): number {
  for (const { layout } of memory) {
    const offset = guestAddress - layout.guestAddress;
    if (offset >= 0 && offset < layout.sizeBytes) return layout.userAddress + offset;
  }
  throw new StateError(
    `a ring lies at guest address 0x${guestAddress.toString(16)}, which is in no memory region`,
  );
}
