import { Interrupt, type QueueSetup, type SharedRegion } from "../../src/frontend/mod.ts";
import { GuestMemory } from "../../src/memory/mod.ts";
import { createEventFd, createMemfd, signalEvent } from "../../src/sys/mod.ts";
import {
  createDriverRing,
  type DriverRing,
  INITIAL_PACKED_BASE,
  type RingLayout,
} from "../../src/vring/mod.ts";

const MEMORY_BYTES = 1 << 20;
const USER_BASE = 0x7f00_0000_0000;
const BUFFERS = 0x80000;
const SLOT_BYTES = 64;

export interface EchoDriverOptions {
  readonly packed?: boolean;
  readonly size?: number;
  /** Which queue of the device it drives, and where its megabyte of guest memory begins. */
  readonly index?: number;
  readonly guestAddress?: number;
}

/** A driver with one echo queue and its own guest memory, for a front-end whose back-end may be in another process. */
export class EchoDriver implements Disposable {
  readonly memory = new GuestMemory();
  readonly regions: readonly SharedRegion[];
  readonly interrupt = new Interrupt();
  readonly #owned = new DisposableStack();
  readonly #driver: DriverRing<{ readonly value: number; readonly slot: number }>;
  readonly #layout: RingLayout;
  readonly #kick = this.#owned.use(createEventFd("echo driver kick"));
  readonly #index: number;
  readonly #buffers: number;
  readonly #slots: number[];
  #next = 0;
  /** Values in the order in which their echoes came. */
  readonly completed: number[] = [];

  constructor(options: EchoDriverOptions = {}) {
    const { packed = false, size = 64, index = 0, guestAddress = 0 } = options;
    this.#index = index;
    this.#buffers = guestAddress + BUFFERS;
    const userAddress = USER_BASE + guestAddress;
    const layout = { guestAddress, sizeBytes: MEMORY_BYTES, userAddress, mmapOffset: 0 };
    const fd = this.#owned.use(createMemfd("echo driver", MEMORY_BYTES));
    this.memory.addRegion(layout, fd.duplicate());
    this.regions = [{ layout, fd }];
    const base = packed ? INITIAL_PACKED_BASE : 0;
    this.#layout = {
      size,
      descriptor: guestAddress,
      available: guestAddress + 0x10000,
      used: guestAddress + 0x20000,
      packed,
      eventIdx: false,
      indirect: false,
      base,
    };
    this.#driver = createDriverRing(this.memory, this.#layout);
    this.#slots = Array.from({ length: size }, (_, i) => i);
  }

  get setup(): QueueSetup {
    return { index: this.#index, ...this.#layout, vector: this.#index, kick: this.#kick };
  }

  get outstanding(): number {
    return this.#driver.outstanding;
  }

  /** Offers requests until the ring is full or `upTo` values were sent in all. */
  fill(upTo: number): void {
    while (this.#next < upTo && this.#slots.length > 0) {
      const slot = this.#slots.at(-1)!;
      const address = this.#buffers + slot * SLOT_BYTES;
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setUint32(0, this.#next, true);
      this.memory.write(address, bytes);
      this.memory.write(address + 32, new Uint8Array(8));
      const pieces = [
        { guestAddress: address, sizeBytes: 8, writable: false },
        { guestAddress: address + 32, sizeBytes: 8, writable: true },
      ];
      if (!this.#driver.add(pieces, { value: this.#next, slot })) break;
      this.#slots.pop();
      this.#next++;
    }
    signalEvent(this.#kick);
  }

  /** Takes what came back. @throws Error when an echo is not its request's */
  take(): void {
    for (let used = this.#driver.popUsed(); used !== undefined; used = this.#driver.popUsed()) {
      const { value, slot } = used.token;
      const echo = new Uint8Array(8);
      this.memory.read(this.#buffers + slot * SLOT_BYTES + 32, echo);
      const got = new DataView(echo.buffer).getUint32(0, true);
      if (got !== value || used.writtenBytes !== 8) throw new Error(`request ${value} came back as ${got}`);
      this.completed.push(value);
      this.#slots.push(slot);
    }
  }

  [Symbol.dispose](): void {
    this.#driver[Symbol.dispose]();
    this.interrupt[Symbol.dispose]();
    this.memory[Symbol.dispose]();
    this.#owned[Symbol.dispose]();
  }
}
