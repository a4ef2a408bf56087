import { StateError } from "../errors.ts";
import { MAX_MEM_SLOTS } from "../limits.ts";
import { disposeAll, type Fd } from "../sys/mod.ts";
import type { AddressSpace } from "./address-space.ts";
import type { DirtyLog } from "./dirty-log.ts";
import { hex, MemoryRegion, type RegionLayout, type SharedRegion } from "./memory-region.ts";
import { RegionIndex } from "./region-index.ts";

export interface GuestMemoryOptions {
  /** Most regions at a time; MAX_MEM_SLOTS by default. */
  readonly maxSlots?: number;
  /** Refuse fds that the peer could still shrink under us (`--untrusted-peer`). */
  readonly demandSeals?: boolean;
}

/**
 * The guest's memory as the front-end shares it. Also the address space of guest-physical addresses.
 *
 * Views belong to the thread that made them: a ring Worker has a GuestMemory of its own over the same mappings (`alias`).
 *
 * @example
 * using memory = new GuestMemory();
 * const layout = { guestAddress: 0, sizeBytes: 4096, userAddress: 0x7f0000000000, mmapOffset: 0 };
 * memory.addRegion(layout, createMemfd("guest", 4096));
 * memory.write(16, Uint8Array.of(1, 2, 3));
 */
export class GuestMemory implements AddressSpace, Disposable {
  /** Where writes to guest memory are recorded while a migration runs. Not owned: whoever sets it disposes of it. */
  dirtyLog: DirtyLog | undefined;
  readonly missPending = false;
  readonly #maxSlots: number;
  readonly demandSeals: boolean;
  #byGuest = new RegionIndex([], guestRange);
  #byUser = new RegionIndex([], userRange);

  constructor(options: GuestMemoryOptions = {}) {
    this.#maxSlots = options.maxSlots ?? MAX_MEM_SLOTS;
    this.demandSeals = options.demandSeals ?? false;
  }

  /** The regions, in the order of their guest-physical addresses. */
  get regions(): readonly MemoryRegion[] {
    return this.#byGuest.sorted;
  }

  get totalBytes(): number {
    return this.regions.reduce((sum, region) => sum + region.layout.sizeBytes, 0);
  }

  /**
   * Replaces all regions. Takes the fds. All or nothing: on an error the old regions stay and the new fds are closed.
   * Views and native addresses of old regions are void afterwards: stop the rings first, and open them again.
   * @throws StateError, SyscallError
   */
  setTable(entries: readonly { readonly layout: RegionLayout; readonly fd: Fd }[]): void {
    const old = this.regions;
    this.#adopt([], entries);
    disposeAll(old);
  }

  /** Adds a region. Takes the fd. @throws StateError when it overlaps, is impossible, or no slot is left */
  addRegion(layout: RegionLayout, fd: Fd): void {
    this.#adopt(this.regions, [{ layout, fd }]);
  }

  /** Removes the region with this guest address, user address and size. @throws StateError if there is none */
  removeRegion(layout: RegionLayout): void {
    const { guestAddress, userAddress, sizeBytes } = layout;
    const region = this.#byGuest.find(guestAddress);
    const found = region?.layout;
    if (
      region === undefined ||
      found?.guestAddress !== guestAddress ||
      found.userAddress !== userAddress ||
      found.sizeBytes !== sizeBytes
    ) {
      throw new StateError(
        `no memory region has guest address ${hex(guestAddress)}, this size and this user address`,
        {
          details: { guestAddress, userAddress, sizeBytes },
        },
      );
    }
    this.#install(this.regions.filter((other) => other !== region));
    region[Symbol.dispose]();
  }

  /**
   * Makes the regions those that another thread has mapped. What was there before and still is keeps its views; views of
   * the rest are void. @throws StateError
   */
  alias(shared: readonly SharedRegion[]): void {
    const kept = this.regions.filter((region) => shared.some((one) => isSame(region, one)));
    const fresh = shared.filter((one) => !kept.some((region) => isSame(region, one)));
    const dropped = this.regions.filter((region) => !kept.includes(region));
    this.#install([...kept, ...fresh.map((one) => MemoryRegion.alias(one))]);
    disposeAll(dropped);
  }

  nativeAddress(guestAddress: number, sizeBytes: number): number {
    const region = this.#byGuest.find(guestAddress);
    if (region === undefined || guestAddress + sizeBytes > region.guestEnd) return -1;
    return guestAddress + region.nativeOffset;
  }

  contiguousBytes(guestAddress: number): number {
    const region = this.#byGuest.find(guestAddress);
    return region === undefined ? 0 : region.guestEnd - guestAddress;
  }

  toGuest(address: number): number {
    return address;
  }

  /** The guest-physical address of a range that the front-end names by its own addresses; -1 if it has none. */
  userToGuest(userAddress: number, sizeBytes: number): number {
    const region = this.#byUser.find(userAddress);
    if (region === undefined || userAddress + sizeBytes > region.userEnd) return -1;
    return userAddress - region.layout.userAddress + region.layout.guestAddress;
  }

  /** A view of its own for a ring; give it back with `closeWindow`. @throws StateError when not in one region */
  window(guestAddress: number, sizeBytes: number): ArrayBuffer {
    const region = this.#byGuest.find(guestAddress);
    if (region === undefined || guestAddress + sizeBytes > region.guestEnd) {
      throw new StateError(
        `${sizeBytes} bytes at guest address ${hex(guestAddress)} are not in one memory region`,
        {
          details: { guestAddress, sizeBytes },
        },
      );
    }
    return region.mapping.window(guestAddress - region.layout.guestAddress, sizeBytes);
  }

  /** Detaches a window. One whose region is gone was detached with it. */
  closeWindow(window: ArrayBuffer): void {
    for (const region of this.regions) region.mapping.closeWindow(window);
  }

  /**
   * Copies guest memory to `into`, or to a part of it; the range may span regions.
   * @throws StateError when a part is not mapped
   */
  read(guestAddress: number, into: Uint8Array, at = 0, sizeBytes = into.length - at): void {
    for (let done = 0; done < sizeBytes; ) {
      const address = guestAddress + done;
      const region = this.#regionAt(address, guestAddress, sizeBytes);
      const count = Math.min(sizeBytes - done, region.guestEnd - address);
      region.read(address - region.layout.guestAddress, into, at + done, count);
      done += count;
    }
  }

  /**
   * Copies `bytes`, or a part of them, to guest memory and marks the pages dirty.
   * @throws StateError when a part is not mapped
   */
  write(guestAddress: number, bytes: Uint8Array, at = 0, sizeBytes = bytes.length - at): void {
    for (let done = 0; done < sizeBytes; ) {
      const address = guestAddress + done;
      const region = this.#regionAt(address, guestAddress, sizeBytes);
      const count = Math.min(sizeBytes - done, region.guestEnd - address);
      region.write(address - region.layout.guestAddress, bytes, at + done, count);
      done += count;
    }
    this.dirtyLog?.mark(guestAddress, sizeBytes);
  }

  [Symbol.dispose](): void {
    const old = this.regions;
    this.#install([]);
    disposeAll(old);
  }

  #regionAt(address: number, start: number, sizeBytes: number): MemoryRegion {
    const region = this.#byGuest.find(address);
    if (region !== undefined) return region;
    throw new StateError(`guest address ${hex(address)} is in no memory region`, {
      details: { address, start, sizeBytes },
    });
  }

  #adopt(kept: readonly MemoryRegion[], entries: readonly { layout: RegionLayout; fd: Fd }[]): void {
    const added: MemoryRegion[] = [];
    try {
      if (kept.length + entries.length > this.#maxSlots) {
        throw new StateError(`more than ${this.#maxSlots} memory regions`, {
          details: { maxSlots: this.#maxSlots, regions: kept.length + entries.length },
        });
      }
      for (const { layout, fd } of entries) added.push(MemoryRegion.map(layout, fd, this.demandSeals));
      this.#install([...kept, ...added]);
    } catch (error) {
      disposeAll(added);
      for (const { fd } of entries) fd[Symbol.dispose]();
      throw error;
    }
  }

  #install(regions: readonly MemoryRegion[]): void {
    const byGuest = new RegionIndex(regions, guestRange);
    const byUser = new RegionIndex(regions, userRange);
    for (const [index, kind] of [
      [byGuest, "guest"],
      [byUser, "user"],
    ] as const) {
      const pair = index.overlap();
      if (pair === undefined) continue;
      const [a, b] = pair.map((region) => hex(region.layout.guestAddress));
      throw new StateError(
        `the memory regions at guest addresses ${a} and ${b} overlap in ${kind} addresses`,
      );
    }
    this.#byGuest = byGuest;
    this.#byUser = byUser;
  }
}

function isSame({ layout, mapping }: MemoryRegion, shared: SharedRegion): boolean {
  const { guestAddress, sizeBytes, userAddress } = shared.layout;
  return (
    mapping.address === shared.address &&
    layout.guestAddress === guestAddress &&
    layout.sizeBytes === sizeBytes &&
    layout.userAddress === userAddress
  );
}

function guestRange(region: MemoryRegion): { start: number; end: number } {
  return { start: region.layout.guestAddress, end: region.guestEnd };
}

function userRange(region: MemoryRegion): { start: number; end: number } {
  return { start: region.layout.userAddress, end: region.userEnd };
}
