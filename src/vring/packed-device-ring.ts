import assert from "node:assert/strict";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import type { Chain } from "./chain.ts";
import type { DeviceRing } from "./device-ring.ts";
import { IndirectTable, joinAddress } from "./indirect-table.ts";
import { PackedBatch } from "./packed-batch.ts";
import type { PackedInflight } from "./packed-inflight.ts";
import { RingError } from "./ring-error.ts";
import { type PackedBase, packBase, type RingLayout, unpackBase } from "./ring-layout.ts";
import { RingLog } from "./ring-log.ts";
import { openPackedRing, type PackedRingMemory } from "./ring-memory.ts";
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_HALVES,
  DESCRIPTOR_WORDS,
  EVENT_BYTES,
  EVENT_F_DESC,
  EVENT_F_DISABLE,
  EVENT_F_ENABLE,
  HALF_PACKED_FLAGS,
  WORD_ADDRESS_HIGH,
  WORD_ADDRESS_LOW,
  WORD_LAST,
  WORD_LENGTH,
  WRAP_BIT,
} from "./ring-offsets.ts";

/**
 * The device's side of a packed ring (virtio 1.2, 2.8).
 *
 * Completions stay here until `publish`, which writes them all and the flags of the first one last: until then the driver
 * sees none of them, and a crash leaves none of them half done. Which loads are atomic: see SplitDeviceRing.
 */
export class PackedDeviceRing implements DeviceRing {
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #space: AddressSpace;
  readonly #ring: PackedRingMemory;
  readonly #indirect: IndirectTable | undefined;
  readonly #eventIdx: boolean;
  readonly #descriptorLog: RingLog;
  readonly #eventLog: RingLog;
  readonly #inflight: PackedInflight | undefined;
  /** 1 for each buffer id that is popped. The driver chooses ids freely among all 16-bit numbers. */
  readonly #taken = new Uint8Array(0x10000);
  readonly #batch: PackedBatch;
  #resubmit: readonly number[] = [];
  #resubmitted = 0;
  #availableIndex: number;
  #availableWrap: boolean;
  #usedIndex: number;
  #usedWrap: boolean;
  #descriptorsTaken = 0;
  /** After a start it is unknown whether the driver was notified last, so the first publish notifies. */
  #firstPublish = true;
  #inFlight = 0;

  constructor(
    memory: GuestMemory,
    space: AddressSpace,
    layout: RingLayout,
    inflight: PackedInflight | undefined,
    logging: (() => boolean) | undefined,
  ) {
    const { size } = layout;
    this.#ring = openPackedRing(memory, space, layout);
    this.size = size;
    this.#memory = memory;
    this.#space = space;
    this.#indirect = layout.indirect ? new IndirectTable(memory, space, size) : undefined;
    this.#eventIdx = layout.eventIdx;
    // log_guest_addr names the device event area, which is the "used" address of a packed ring in SET_VRING_ADDR. What the
    // device writes to the descriptor ring must be logged too, under that ring's own guest address.
    const logsRing = layout.logAddress !== undefined;
    this.#descriptorLog = new RingLog(
      memory,
      logsRing ? space.toGuest(layout.descriptor) : undefined,
      logging,
    );
    this.#eventLog = new RingLog(memory, layout.logAddress, logging);
    this.#batch = new PackedBatch(size);
    this.#inflight = inflight;
    try {
      const base = this.#recover(layout.base);
      this.#availableIndex = base.availableIndex;
      this.#availableWrap = base.availableWrap;
      this.#usedIndex = base.usedIndex;
      this.#usedWrap = base.usedWrap;
    } catch (error) {
      this.#ring[Symbol.dispose]();
      throw error;
    }
  }

  get base(): number {
    return packBase({
      availableIndex: this.#availableIndex,
      availableWrap: this.#availableWrap,
      usedIndex: this.#usedIndex,
      usedWrap: this.#usedWrap,
    });
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get toResubmit(): number {
    return this.#resubmit.length - this.#resubmitted;
  }

  pop(chain: Chain): boolean {
    if (this.#resubmitted < this.#resubmit.length) return this.#popResubmitted(chain);
    if (!this.#isAvailable()) return false;
    chain.reset(this.#memory);
    const count = this.#walk(chain);
    if (count === 0) return false;
    if (this.#taken[chain.head] !== 0) {
      throw new RingError(`buffer id ${chain.head} is offered twice`, { head: chain.head });
    }
    chain.ringDescriptors = count;
    chain.inflightEntry = this.#inflight?.begin(count) ?? 0;
    this.#availableIndex += count;
    if (this.#availableIndex >= this.size) {
      this.#availableIndex -= this.size;
      this.#availableWrap = !this.#availableWrap;
    }
    this.#descriptorsTaken += count;
    this.#take(chain);
    return true;
  }

  complete(chain: Chain, writtenBytes: number): void {
    const { head } = chain;
    if (this.#taken[head] !== 1) assert.fail(`chain ${head} was not popped or is already completed`);
    if (writtenBytes > chain.writableBytes) assert.fail("more written than the chain can hold");
    this.#descriptorLog.chain(chain, writtenBytes);
    this.#batch.add(head, writtenBytes, chain.ringDescriptors, chain.inflightEntry);
    // 2: completed and not published. The driver may not use the id again before it has seen that.
    this.#taken[head] = 2;
    this.#inFlight--;
  }

  publish(): boolean {
    const batch = this.#batch;
    const { descriptors } = batch;
    if (descriptors === 0) return false;
    let nextIndex = this.#usedIndex + descriptors;
    const wraps = nextIndex >= this.size;
    if (wraps) nextIndex -= this.size;
    const nextWrap = wraps ? !this.#usedWrap : this.#usedWrap;
    this.#prepareInflight(nextIndex, nextWrap);
    batch.write(this.#ring, this.#usedIndex, this.#usedWrap, this.#descriptorLog);
    this.#inflight?.commit();
    for (let i = 0; i < batch.count; i++) this.#taken[batch.ids[i]!] = 0;
    batch.clear();
    this.#usedIndex = nextIndex;
    this.#usedWrap = nextWrap;
    this.#descriptorsTaken -= descriptors;
    return this.#driverWantsInterrupt(descriptors);
  }

  disableNotifications(): void {
    this.#storeEvent(EVENT_F_DISABLE << 16);
  }

  enableNotifications(): boolean {
    if (this.#eventIdx) {
      const position = this.#availableIndex | (this.#availableWrap ? WRAP_BIT : 0);
      this.#storeEvent((EVENT_F_DESC << 16) | position);
    } else {
      this.#storeEvent(EVENT_F_ENABLE << 16);
    }
    // After the store above: a driver that did not see it has made its descriptor available before this load.
    return this.toResubmit > 0 || this.#isAvailable();
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }

  #isAvailable(): boolean {
    const flags = Atomics.load(
      this.#ring.halves,
      this.#availableIndex * DESCRIPTOR_HALVES + HALF_PACKED_FLAGS,
    );
    return (flags & (DESC_F_AVAIL | DESC_F_USED)) === (this.#availableWrap ? DESC_F_AVAIL : DESC_F_USED);
  }

  /** Reads the chain at the available position. Returns its descriptors in the ring, 0 on a missing translation. */
  #walk(chain: Chain): number {
    const { words } = this.#ring;
    const { size } = this;
    const room = size - this.#descriptorsTaken;
    this.#inflight?.startStaging();
    let index = this.#availableIndex;
    for (let count = 1; count <= room; count++) {
      const word = index * DESCRIPTOR_WORDS;
      const low = words[word + WORD_ADDRESS_LOW]!;
      const high = words[word + WORD_ADDRESS_HIGH]!;
      const length = words[word + WORD_LENGTH]!;
      const idAndFlags = words[word + WORD_LAST]!;
      this.#inflight?.stage(low, high, length, idAndFlags);
      if (!this.#appendDescriptor(chain, low, high, length, idAndFlags, count === 1)) return 0;
      if (((idAndFlags >>> 16) & DESC_F_NEXT) === 0) {
        // The id of a chain is that of its last descriptor (virtio 1.2, 2.8.6).
        chain.head = idAndFlags & 0xffff;
        return count;
      }
      index = index + 1 === size ? 0 : index + 1;
    }
    throw new RingError("a chain is longer than the descriptors that can be available", { size, room });
  }

  #appendDescriptor(
    chain: Chain,
    low: number,
    high: number,
    length: number,
    idAndFlags: number,
    isFirst: boolean,
  ): boolean {
    const flags = idAndFlags >>> 16;
    const address = joinAddress(low, high);
    if ((flags & DESC_F_INDIRECT) === 0) {
      return chain.append(this.#space, address, length, (flags & DESC_F_WRITE) !== 0);
    }
    if (this.#indirect === undefined) throw new RingError("an indirect descriptor was not negotiated");
    if ((flags & DESC_F_NEXT) !== 0) throw new RingError("an indirect descriptor has a next one");
    // Unlike in a split ring, a list may not end with an indirect table (virtio 1.2, 2.8.19).
    if (!isFirst) throw new RingError("an indirect descriptor follows others");
    return this.#indirect.appendSequence(chain, address, length);
  }

  #popResubmitted(chain: Chain): boolean {
    const inflight = this.#inflight!;
    const entry = this.#resubmit[this.#resubmitted]!;
    chain.reset(this.#memory);
    let isFirst = true;
    const whole = inflight.eachDescriptor(entry, (low, high, length, idAndFlags) => {
      chain.head = idAndFlags & 0xffff;
      const appended = this.#appendDescriptor(chain, low, high, length, idAndFlags, isFirst);
      isFirst = false;
      return appended;
    });
    if (!whole) return false;
    if (this.#taken[chain.head] !== 0) throw new RingError(`buffer id ${chain.head} is in flight twice`);
    chain.ringDescriptors = inflight.ringDescriptors(entry);
    chain.inflightEntry = entry;
    this.#resubmitted++;
    this.#take(chain);
    return true;
  }

  #take(chain: Chain): void {
    this.#taken[chain.head] = 1;
    this.#inFlight++;
  }

  #recover(layoutBase: number): PackedBase {
    const base = unpackBase(layoutBase, this.size);
    if (this.#inflight === undefined) return base;
    const { halves } = this.#ring;
    const recovered = this.#inflight.recover(base, this.size, (index) =>
      Atomics.load(halves, index * DESCRIPTOR_HALVES + HALF_PACKED_FLAGS),
    );
    this.#resubmit = recovered.entries;
    for (const entry of recovered.entries) this.#descriptorsTaken += this.#inflight.ringDescriptors(entry);
    this.#withdrawUnpublished(recovered.base);
    return recovered.base;
  }

  /**
   * A batch that was cut off before its first descriptor was published has left its other ones in the ring, marked as used.
   * The driver would take them for completions as soon as the first is published anew. So no descriptor that is in flight
   * may look used; the spec does not mention it.
   */
  #withdrawUnpublished(base: PackedBase): void {
    const { halves } = this.#ring;
    let index = base.usedIndex;
    let wrap = base.usedWrap;
    for (let i = 0; i < this.#descriptorsTaken; i++) {
      const half = index * DESCRIPTOR_HALVES + HALF_PACKED_FLAGS;
      const flags = Atomics.load(halves, half) & (DESC_F_AVAIL | DESC_F_USED);
      if (flags === (wrap ? DESC_F_AVAIL | DESC_F_USED : 0)) {
        Atomics.store(halves, half, wrap ? DESC_F_AVAIL : DESC_F_USED);
        this.#descriptorLog.mark(index * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
      }
      index++;
      if (index === this.size) {
        index = 0;
        wrap = !wrap;
      }
    }
  }

  #prepareInflight(usedIndex: number, usedWrap: boolean): void {
    if (this.#inflight === undefined) return;
    for (let i = 0; i < this.#batch.count; i++) this.#inflight.release(this.#batch.entries[i]!);
    this.#inflight.setUsed(usedIndex, usedWrap);
  }

  /** After `publish` has moved on: does the driver wait for one of the last `descriptors` positions? */
  #driverWantsInterrupt(descriptors: number): boolean {
    const event = Atomics.load(this.#ring.driverEvent, 0);
    const flags = event >>> 16;
    if (flags !== EVENT_F_DESC || !this.#eventIdx) return flags !== EVENT_F_DISABLE;
    const sameLap = ((event & WRAP_BIT) !== 0) === this.#usedWrap;
    const position = (event & 0x7fff) - (sameLap ? 0 : this.size);
    const first = this.#firstPublish;
    this.#firstPublish = false;
    return first || ((this.#usedIndex - position - 1) & 0xffff) < descriptors;
  }

  #storeEvent(value: number): void {
    Atomics.store(this.#ring.deviceEvent, 0, value);
    this.#eventLog.mark(0, EVENT_BYTES);
  }
}
