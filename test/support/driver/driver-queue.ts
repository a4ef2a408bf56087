import type { QueueSetup } from "../../../src/frontend/mod.ts";
import { createEventFd, type Deadline, type Fd, signalEvent } from "../../../src/sys/mod.ts";
import {
  createDriverRing,
  type DriverPiece,
  type DriverRing,
  type DriverRingState,
  INITIAL_PACKED_BASE,
  type IndirectArea,
  indirectAreaBytes,
  type RingLayout,
} from "../../../src/vring/mod.ts";
import type { DriverMemory } from "./driver-memory.ts";

export interface DriverQueueOptions {
  readonly size: number;
  readonly packed: boolean;
  readonly eventIdx: boolean;
  /** Descriptors of an indirect table; 0: none are used. */
  readonly indirectPieces: number;
}

/** Plain data: what a queue goes on from in another process. */
export interface DriverQueueState<Token> {
  readonly base: number;
  readonly ring: DriverRingState<Token>;
}

/** The driver's side of one queue: ring, kick, and where the device goes on. Its interrupt vector is its index. */
export class DriverQueue<Token> implements Disposable {
  readonly ring: DriverRing<Token>;
  readonly kick: Fd;
  /** For SET_VRING_BASE. Set by whoever stops the ring. */
  base: number;
  readonly #layout: RingLayout;

  constructor(
    readonly index: number,
    readonly memory: DriverMemory,
    options: DriverQueueOptions,
    state?: DriverQueueState<Token>,
  ) {
    const { size, packed, eventIdx, indirectPieces } = options;
    this.base = state?.base ?? (packed ? INITIAL_PACKED_BASE : 0);
    this.#layout = {
      size,
      descriptor: memory.allocate(size * 16, 4096),
      available: memory.allocate(6 + size * 2),
      used: memory.allocate(6 + size * 8),
      packed,
      eventIdx,
      indirect: indirectPieces > 0,
      base: this.base,
    };
    const indirectArea: IndirectArea | undefined =
      indirectPieces === 0
        ? undefined
        : {
            guestAddress: memory.allocate(indirectAreaBytes(size, indirectPieces)),
            maxPieces: indirectPieces,
          };
    this.ring = createDriverRing(memory.guest, this.#layout, { indirectArea, state: state?.ring });
    this.kick = createEventFd(`kick of queue ${index}`);
  }

  /** As `activate` and `wake` of a VirtioDevice take it. */
  get setup(): QueueSetup {
    const { size, descriptor, available, used } = this.#layout;
    const { index, base, kick } = this;
    return { index, size, descriptor, available, used, base, vector: index, kick };
  }

  /** Offers a chain, without a kick; false when the ring is full. */
  add(pieces: readonly DriverPiece[], token: Token): boolean {
    return this.ring.add(pieces, token);
  }

  /** Kicks the device for what was added, if it wants that. */
  notify(): void {
    if (this.ring.kickNeeded()) signalEvent(this.kick);
  }

  /**
   * Waits in line until everything that the device took has come back. A back-end should do this before it answers
   * GET_VRING_BASE; qemu-storage-daemon 10.0.2 answers at once, and goes on writing to guest memory (measured).
   * A packed ring cannot be asked: what was used is known to the device alone.
   */
  settle(deadline: Deadline): void {
    if (this.#layout.packed) return;
    while (this.usedIndex !== (this.base & 0xffff)) {
      if (deadline.expired) throw new Error(`queue ${this.index}: used ${this.usedIndex}, base ${this.base}`);
      Bun.sleepSync(1);
    }
  }

  /** Where a split ring's device stands with its completions. */
  get usedIndex(): number {
    const [low = 0, high = 0] = this.memory.read(this.#layout.used + 2, 2);
    return low | (high << 8);
  }

  exportState(): DriverQueueState<Token> {
    return { base: this.base, ring: this.ring.exportState() };
  }

  [Symbol.dispose](): void {
    this.ring[Symbol.dispose]();
    this.kick[Symbol.dispose]();
  }
}
