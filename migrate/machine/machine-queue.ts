import type { QueueSetup } from "../../src/frontend/mod.ts";
import { createEventFd, type Fd, signalEvent } from "../../src/sys/mod.ts";
import {
  createDriverRing,
  type DriverPiece,
  type DriverRing,
  type DriverRingState,
  type RingLayout,
} from "../../src/vring/mod.ts";
import type { MachineMemory } from "./machine-memory.ts";

/** What a restored queue goes on from. */
export interface QueueState {
  readonly base: number;
  readonly ring: DriverRingState<number>;
}

const descriptorBytes = (size: number) => size * 16;
const availableBytes = (size: number) => 6 + size * 2;
const usedBytes = (size: number) => 6 + size * 8;

/** A split ring with its driver: the machine's side of one queue. Tokens are numbers that the workload gives meaning to. */
export class MachineQueue implements Disposable {
  readonly ring: DriverRing<number>;
  readonly kick: Fd;
  /** Where the device goes on; set by the device's sleep. */
  base = 0;
  readonly #layout: RingLayout;

  constructor(
    readonly index: number,
    size: number,
    readonly memory: MachineMemory,
    features: { readonly eventIdx: boolean },
    state?: QueueState,
  ) {
    this.#layout = {
      size,
      descriptor: memory.allocate(descriptorBytes(size)),
      available: memory.allocate(availableBytes(size), 2),
      used: memory.allocate(usedBytes(size)),
      packed: false,
      indirect: false,
      eventIdx: features.eventIdx,
      base: 0,
    };
    this.base = state?.base ?? 0;
    this.ring = createDriverRing(memory.guest, this.#layout, { state: state?.ring });
    this.kick = createEventFd(`kick of queue ${index}`);
  }

  get size(): number {
    return this.#layout.size;
  }

  /** Where in guest memory the ring is. */
  get parts(): readonly { readonly guestAddress: number; readonly sizeBytes: number }[] {
    const { size, descriptor, available, used } = this.#layout;
    return [
      { guestAddress: descriptor, sizeBytes: descriptorBytes(size) },
      { guestAddress: available, sizeBytes: availableBytes(size) },
      { guestAddress: used, sizeBytes: usedBytes(size) },
    ];
  }

  get setup(): QueueSetup {
    const { size, descriptor, available, used } = this.#layout;
    return {
      index: this.index,
      size,
      descriptor,
      available,
      used,
      base: this.base,
      vector: this.index,
      kick: this.kick,
    };
  }

  /** Offers a chain; false when the ring is full. */
  add(pieces: readonly DriverPiece[], token: number): boolean {
    return this.ring.add(pieces, token);
  }

  /** Tells the device about what was added, if it wants to know. */
  notify(): void {
    if (this.ring.kickNeeded()) signalEvent(this.kick);
  }

  /** Calls `onUsed` for every chain that came back, until none is left. */
  drain(onUsed: (token: number, writtenBytes: number) => void): void {
    do {
      this.ring.disableInterrupts();
      for (let used = this.ring.popUsed(); used !== undefined; used = this.ring.popUsed()) {
        onUsed(used.token, used.writtenBytes);
      }
    } while (this.ring.enableInterrupts());
  }

  /** How far the device has come, as the guest sees it: the used ring's free-running index. */
  get usedIndex(): number {
    const index = new Uint8Array(2);
    this.memory.guest.read(this.#layout.used + 2, index);
    return index[0]! | (index[1]! << 8);
  }

  /** True when everything that the device took has come back. */
  get isSettled(): boolean {
    return this.usedIndex === this.base;
  }

  exportState(): QueueState {
    return { base: this.base, ring: this.ring.exportState() };
  }

  [Symbol.dispose](): void {
    this.ring[Symbol.dispose]();
    this.kick[Symbol.dispose]();
  }
}
