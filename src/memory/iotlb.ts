import { StateError } from "../errors.ts";
import { MAX_IOTLB_ENTRIES } from "../limits.ts";
import type { AddressSpace } from "./address-space.ts";
import type { GuestMemory } from "./guest-memory.ts";

/** The `perm` field of an IOTLB message. */
export const IotlbPermission = { READ: 1, WRITE: 2, READ_WRITE: 3 } as const;

/** One translation: I/O virtual addresses to the front-end's user addresses. */
export interface IotlbEntry {
  readonly iova: number;
  readonly sizeBytes: number;
  readonly userAddress: number;
  readonly permission: number;
}

/** A translation that was needed and is not there. */
export interface IotlbMiss {
  readonly iova: number;
  readonly permission: number;
}

/**
 * The device's translation cache (VIRTIO_F_ACCESS_PLATFORM). On a miss a translation gives -1, and `takeMiss` tells what
 * to ask the front-end for; a ring's `pop` then gives false and can be tried again after the update.
 */
export class Iotlb implements AddressSpace {
  readonly #memory: GuestMemory;
  readonly #maxEntries: number;
  /** Sorted by iova, never overlapping. */
  #entries: IotlbEntry[] = [];
  readonly #age: IotlbEntry[] = [];
  #last: IotlbEntry | undefined;
  #miss: IotlbMiss | undefined;

  constructor(memory: GuestMemory, maxEntries = MAX_IOTLB_ENTRIES) {
    this.#memory = memory;
    this.#maxEntries = maxEntries;
  }

  get size(): number {
    return this.#entries.length;
  }

  get missPending(): boolean {
    return this.#miss !== undefined;
  }

  /** The last miss, once. */
  takeMiss(): IotlbMiss | undefined {
    const miss = this.#miss;
    this.#miss = undefined;
    return miss;
  }

  /** Adds a translation; it replaces those that it overlaps, and the oldest one when the cache is full. */
  update(entry: IotlbEntry): void {
    const { iova, sizeBytes, userAddress, permission } = entry;
    const end = Math.max(iova, userAddress) + sizeBytes;
    if (!(sizeBytes > 0 && iova >= 0 && userAddress >= 0 && Number.isSafeInteger(end))) {
      throw new StateError("an IOTLB entry is empty or ends above 2^53", { details: { ...entry } });
    }
    if (!(permission >= IotlbPermission.READ && permission <= IotlbPermission.READ_WRITE)) {
      throw new StateError(`an IOTLB entry has permission ${permission}`, { details: { ...entry } });
    }
    this.invalidate(entry);
    if (this.#entries.length >= this.#maxEntries) this.invalidate(this.#age[0]!);
    this.#entries.splice(this.#firstAfter(iova), 0, entry);
    this.#age.push(entry);
    this.#miss = undefined;
  }

  /** Drops every translation that overlaps the range. */
  invalidate(range: { readonly iova: number; readonly sizeBytes: number }): void {
    const end = range.iova + range.sizeBytes;
    const dropped = new Set(
      this.#entries.filter((entry) => entry.iova < end && entry.iova + entry.sizeBytes > range.iova),
    );
    if (dropped.size === 0) return;
    this.#last = undefined;
    this.#entries = this.#entries.filter((entry) => !dropped.has(entry));
    this.#age.splice(0, this.#age.length, ...this.#age.filter((entry) => !dropped.has(entry)));
  }

  nativeAddress(address: number, sizeBytes: number, write = false): number {
    const entry = this.#find(address, write);
    if (entry === undefined) return -1;
    const user = entry.userAddress + (address - entry.iova);
    let covered = entry.iova + entry.sizeBytes - address;
    // A range over several entries counts as one when their user addresses are adjacent too.
    while (covered < sizeBytes) {
      const next = this.#find(address + covered, write);
      if (next === undefined || next.userAddress !== user + covered) return -1;
      covered += next.sizeBytes;
    }
    const guest = this.#memory.userToGuest(user, sizeBytes);
    return guest < 0 ? -1 : this.#memory.nativeAddress(guest, sizeBytes);
  }

  contiguousBytes(address: number, write = false): number {
    const entry = this.#find(address, write);
    if (entry === undefined) return 0;
    const guest = this.#memory.userToGuest(entry.userAddress + (address - entry.iova), 1);
    if (guest < 0) return 0;
    return Math.min(entry.iova + entry.sizeBytes - address, this.#memory.contiguousBytes(guest));
  }

  toGuest(address: number): number {
    const entry = this.#at(address);
    return entry === undefined ? -1 : this.#memory.userToGuest(entry.userAddress + (address - entry.iova), 1);
  }

  #find(address: number, write: boolean): IotlbEntry | undefined {
    const permission = write ? IotlbPermission.WRITE : IotlbPermission.READ;
    const entry = this.#at(address);
    if (entry !== undefined && (entry.permission & permission) !== 0) return entry;
    this.#miss = { iova: address, permission };
    return undefined;
  }

  #at(address: number): IotlbEntry | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.iova && address < last.iova + last.sizeBytes) return last;
    const entry = this.#entries[this.#firstAfter(address) - 1];
    if (entry === undefined || address >= entry.iova + entry.sizeBytes) return undefined;
    this.#last = entry;
    return entry;
  }

  /** Index of the first entry that starts above the address. */
  #firstAfter(address: number): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle]!.iova <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
