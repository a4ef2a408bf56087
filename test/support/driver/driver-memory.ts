import type { SharedRegion } from "../../../src/frontend/mod.ts";
import { GuestMemory } from "../../../src/memory/mod.ts";
import { createMemfd, type Fd } from "../../../src/sys/mod.ts";

/** Any address does: vhost-user names ring addresses by it, and nobody dereferences it. */
const USER_BASE = 0x7f00_0000_0000;
/** Address 0 stays unused, so that a forgotten address is noticed. */
const FIRST_ADDRESS = 4096;

/**
 * A driver's guest memory: one memfd that is shared with back-ends, and a bump allocator that gives the same addresses to
 * whoever asks in the same order, so that a restored driver finds its rings and buffers again.
 */
export class DriverMemory implements Disposable {
  readonly guest = new GuestMemory();
  readonly regions: readonly SharedRegion[];
  #next = FIRST_ADDRESS;

  /** Takes the memfd of a saved driver, or makes a new one. */
  constructor(
    readonly sizeBytes: number,
    fd: Fd = createMemfd("driver memory", sizeBytes),
  ) {
    const layout = { guestAddress: 0, sizeBytes, userAddress: USER_BASE, mmapOffset: 0 };
    this.regions = [{ layout, fd }];
    this.guest.addRegion(layout, fd.duplicate());
  }

  /** Guest-physical address of `sizeBytes` fresh bytes. */
  allocate(sizeBytes: number, alignment = 64): number {
    const address = Math.ceil(this.#next / alignment) * alignment;
    if (address + sizeBytes > this.sizeBytes) throw new Error("the driver's guest memory is full");
    this.#next = address + sizeBytes;
    return address;
  }

  write(guestAddress: number, bytes: Uint8Array): void {
    this.guest.write(guestAddress, bytes);
  }

  /** A copy of guest memory. */
  read(guestAddress: number, sizeBytes: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(new ArrayBuffer(sizeBytes));
    this.guest.read(guestAddress, bytes);
    return bytes;
  }

  [Symbol.dispose](): void {
    this.guest[Symbol.dispose]();
    for (const { fd } of this.regions) fd[Symbol.dispose]();
  }
}
