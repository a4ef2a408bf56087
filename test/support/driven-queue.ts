import type { QueueRunner, VhostUserDevice } from "../../src/backend/mod.ts";
import { DeviceQueue } from "../../src/backend/mod.ts";
import { GuestMemory } from "../../src/memory/mod.ts";
import { createMemfd } from "../../src/sys/mod.ts";
import {
  createDeviceRing,
  createDriverRing,
  type DriverPiece,
  type DriverRing,
  INITIAL_PACKED_BASE,
  type RingLayout,
} from "../../src/vring/mod.ts";

/** Room for each part of a ring of 4096 descriptors. */
const RING_BYTES = 0x10000;
const DEFAULT_SIZE = 64;

/** A buffer of a request as a test writes it: bytes for the device to read, or room for it to write. */
export type Piece = { readonly out: Uint8Array } | { readonly room: number };

export interface Used {
  /** What the device said it wrote. */
  readonly writtenBytes: number;
  /** All writable bytes of the chain, whether written or not. */
  readonly written: Uint8Array;
}

/** Shared guest memory, and a bump allocator for the buffers in it. */
export class DrivenMemory implements Disposable {
  readonly memory = new GuestMemory();
  #next = 0;

  constructor(readonly sizeBytes = 16 << 20) {
    const layout = { guestAddress: 0, sizeBytes, userAddress: 0x7f00_0000_0000, mmapOffset: 0 };
    this.memory.addRegion(layout, createMemfd("driven guest", sizeBytes));
  }

  allocate(sizeBytes: number, alignment = 64): number {
    const address = Math.ceil(this.#next / alignment) * alignment;
    if (address + sizeBytes > this.sizeBytes) throw new Error("the test's guest memory is full");
    this.#next = address + sizeBytes;
    return address;
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
  }
}

interface Sent {
  readonly rooms: readonly { readonly address: number; readonly sizeBytes: number }[];
}

/** The two sides of one queue of a device in one process: a test adds chains as a driver, and kicks the device. */
export class DrivenQueue implements Disposable {
  readonly layout: RingLayout;
  readonly driver: DriverRing<Sent>;
  queue: DeviceQueue;
  /** Interrupts so far. */
  calls = 0;
  #runner: QueueRunner | undefined;

  constructor(
    readonly driven: DrivenMemory,
    public device: VhostUserDevice,
    readonly index: number,
    options: { readonly packed?: boolean; readonly size?: number } = {},
  ) {
    const start = driven.allocate(3 * RING_BYTES, 4096);
    const packed = options.packed ?? false;
    this.layout = {
      size: options.size ?? DEFAULT_SIZE,
      descriptor: start,
      available: start + RING_BYTES,
      used: start + 2 * RING_BYTES,
      packed,
      eventIdx: false,
      indirect: false,
      base: packed ? INITIAL_PACKED_BASE : 0,
    };
    this.driver = createDriverRing(driven.memory, this.layout);
    this.queue = this.#open(this.layout);
    this.start();
  }

  /** Adds a chain; false when the ring is full. */
  add(pieces: readonly Piece[]): boolean {
    const rooms: { address: number; sizeBytes: number }[] = [];
    const chain = pieces.map((piece): DriverPiece => {
      const sizeBytes = "out" in piece ? piece.out.length : piece.room;
      const guestAddress = this.driven.allocate(sizeBytes);
      if ("out" in piece) this.driven.memory.write(guestAddress, piece.out);
      else rooms.push({ address: guestAddress, sizeBytes });
      return { guestAddress, sizeBytes, writable: "room" in piece };
    });
    return this.driver.add(chain, { rooms });
  }

  /** What the device does when the driver kicks. */
  kick(): void {
    this.#runner?.onKick();
  }

  /** The next completed chain. */
  take(): Used | undefined {
    const used = this.driver.popUsed();
    if (used === undefined) return undefined;
    const parts = used.token.rooms.map(({ address, sizeBytes }) => {
      const part = new Uint8Array(sizeBytes);
      this.driven.memory.read(address, part);
      return part;
    });
    return { writtenBytes: used.writtenBytes, written: Buffer.concat(parts) };
  }

  /** Adds a chain, kicks, and takes its completion. */
  run(pieces: readonly Piece[]): Used {
    if (!this.add(pieces)) throw new Error("the ring is full");
    this.kick();
    const used = this.take();
    if (used === undefined) throw new Error("the device did not complete the chain");
    return used;
  }

  start(): void {
    this.queue.wake = () => this.kick();
    this.#runner = this.device.startQueue(this.queue);
    this.kick();
  }

  /** As GET_VRING_BASE: the ring stays where it is. */
  stop(): void {
    if (this.#runner === undefined) return;
    this.#runner = undefined;
    this.device.stopQueue(this.index);
    const { base } = this.queue.ring;
    this.queue.ring[Symbol.dispose]();
    this.queue = this.#open({ ...this.layout, base });
  }

  /** Stops, and goes on where it stood with another device behind the same ring, as after a restore. */
  moveTo(device: VhostUserDevice): void {
    this.stop();
    this.device = device;
    this.start();
  }

  [Symbol.dispose](): void {
    this.stop();
    this.queue.ring[Symbol.dispose]();
    this.driver[Symbol.dispose]();
  }

  #open(layout: RingLayout): DeviceQueue {
    const ring = createDeviceRing(this.driven.memory, this.driven.memory, layout);
    const queue = new DeviceQueue(this.index, layout.size, ring, this.driven.memory);
    queue.call = () => {
      this.calls++;
    };
    return queue;
  }
}
