import { StateError } from "../../src/errors.ts";
import type { SharedRegion } from "../../src/frontend/mod.ts";
import { GuestMemory } from "../../src/memory/mod.ts";
import { createMemfd, type Fd } from "../../src/sys/mod.ts";

/** vhost-user wants every region to have a user address; ours are never dereferenced, so any distinct ones do. */
const USER_BASE = 2 ** 44;

/** Where allocation begins: address 0 stays unused, so that a forgotten address is noticed. */
const FIRST_ADDRESS = 4096;

/**
 * A native machine's memory: one memfd, shared with every back-end, and a bump allocator that hands out the same addresses
 * in every process that builds the same machine.
 */
export class MachineMemory implements Disposable {
  readonly guest = new GuestMemory();
  readonly regions: readonly SharedRegion[];
  #next = FIRST_ADDRESS;

  /** Takes the memfd of a restored machine, or makes a new one. */
  constructor(
    readonly sizeBytes: number,
    fd: Fd = createMemfd("machine memory", sizeBytes),
  ) {
    const layout = { guestAddress: 0, sizeBytes, userAddress: USER_BASE, mmapOffset: 0 };
    this.regions = [{ layout, fd }];
    this.guest.addRegion(layout, fd.duplicate());
  }

  get fd(): Fd {
    return this.regions[0]!.fd;
  }

  /** @throws StateError when the machine's memory is too small for its devices */
  allocate(sizeBytes: number, alignment = 4096): number {
    const address = Math.ceil(this.#next / alignment) * alignment;
    if (address + sizeBytes > this.sizeBytes) {
      throw new StateError(
        `the machine's memory of ${this.sizeBytes} bytes is too small for its devices and workloads`,
      );
    }
    this.#next = address + sizeBytes;
    return address;
  }

  [Symbol.dispose](): void {
    this.guest[Symbol.dispose]();
    this.fd[Symbol.dispose]();
  }
}
