import assert from "node:assert/strict";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import type { Chain } from "./chain.ts";
import type { DeviceRing } from "./device-ring.ts";
import { IndirectTable, joinAddress } from "./indirect-table.ts";
import { RingError } from "./ring-error.ts";
import type { RingLayout } from "./ring-layout.ts";
import { RingLog } from "./ring-log.ts";
import { openSplitRing, type SplitRingMemory } from "./ring-memory.ts";
import {
  AVAIL_F_NO_INTERRUPT,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  DESCRIPTOR_WORDS,
  HALF_AVAILABLE_FLAGS,
  HALF_AVAILABLE_INDEX,
  HALF_AVAILABLE_RING,
  HALF_USED_FLAGS,
  HALF_USED_INDEX,
  USED_ELEMENT_BYTES,
  USED_F_NO_NOTIFY,
  USED_INDEX_BYTE,
  USED_RING_BYTE,
  WORD_ADDRESS_HIGH,
  WORD_ADDRESS_LOW,
  WORD_LAST,
  WORD_LENGTH,
} from "./ring-offsets.ts";
import type { SplitInflight } from "./split-inflight.ts";

/**
 * The device's side of a split ring (virtio 1.2, 2.7).
 *
 * Indices and flags go through Atomics, which are sequentially consistent. The fields of a descriptor are plain loads: 54 ns
 * for a chain of 3 against 102 with Atomics (test/bench/split-ring.ts). They come after the atomic load of the index that
 * published them, and the compiler does not move them before it: test/vring/ring-threads.test.ts checks every field of
 * chains that another thread offers.
 */
export class SplitDeviceRing implements DeviceRing {
  readonly size: number;
  readonly #mask: number;
  readonly #memory: GuestMemory;
  readonly #space: AddressSpace;
  readonly #ring: SplitRingMemory;
  readonly #descriptors: Uint32Array;
  readonly #available: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedElements: Uint32Array;
  readonly #indirect: IndirectTable | undefined;
  readonly #eventIdx: boolean;
  /** Place of used_event in the available ring and of avail_event in the used ring, in halves. */
  readonly #usedEvent: number;
  readonly #availableEvent: number;
  readonly #log: RingLog;
  readonly #inflight: SplitInflight | undefined;
  /** 1 for each head that is popped: a driver that offers one twice would make two requests with one name. */
  readonly #taken: Uint8Array;
  #resubmit: readonly number[] = [];
  #resubmitted = 0;
  #nextAvailable: number;
  #seenAvailable: number;
  #nextUsed: number;
  #publishedUsed: number;
  /** After a start it is unknown what the driver was told last, so the first publish notifies. */
  #firstPublish = true;
  #inFlight = 0;

  constructor(
    memory: GuestMemory,
    space: AddressSpace,
    layout: RingLayout,
    inflight: SplitInflight | undefined,
    logging: (() => boolean) | undefined,
  ) {
    this.#ring = openSplitRing(memory, space, layout);
    const { size } = layout;
    this.size = size;
    this.#mask = size - 1;
    this.#memory = memory;
    this.#space = space;
    this.#descriptors = this.#ring.descriptors;
    this.#available = this.#ring.available;
    this.#used = this.#ring.used;
    this.#usedElements = this.#ring.usedElements;
    this.#indirect = layout.indirect ? new IndirectTable(memory, space, size) : undefined;
    this.#eventIdx = layout.eventIdx;
    this.#usedEvent = HALF_AVAILABLE_RING + size;
    this.#availableEvent = (USED_RING_BYTE + size * USED_ELEMENT_BYTES) / 2;
    this.#log = new RingLog(memory, layout.logAddress, logging);
    this.#taken = new Uint8Array(size);
    this.#nextUsed = Atomics.load(this.#used, HALF_USED_INDEX);
    this.#publishedUsed = this.#nextUsed;
    this.#nextAvailable = layout.base & 0xffff;
    this.#inflight = inflight;
    if (inflight !== undefined) this.#recover(inflight);
    this.#seenAvailable = this.#nextAvailable;
  }

  get base(): number {
    return this.#nextAvailable;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get toResubmit(): number {
    return this.#resubmit.length - this.#resubmitted;
  }

  pop(chain: Chain): boolean {
    if (this.#resubmitted < this.#resubmit.length) return this.#popResubmitted(chain);
    if (this.#nextAvailable === this.#seenAvailable && !this.#look()) return false;
    const head = this.#available[HALF_AVAILABLE_RING + (this.#nextAvailable & this.#mask)]!;
    // A head beyond the ring reads as undefined here, which is not 0 either.
    if (this.#taken[head] !== 0) throw this.#badHead(head);
    if (!this.#walk(head, chain)) return false;
    this.#inflight?.begin(head);
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff;
    this.#take(head, chain);
    return true;
  }

  complete(chain: Chain, writtenBytes: number): void {
    const { head } = chain;
    if (this.#taken[head] !== 1) assert.fail(`chain ${head} was not popped or is already completed`);
    if (writtenBytes > chain.writableBytes) assert.fail("more written than the chain can hold");
    const slot = this.#nextUsed & this.#mask;
    this.#log.chain(chain, writtenBytes);
    this.#log.mark(USED_RING_BYTE + slot * USED_ELEMENT_BYTES, USED_ELEMENT_BYTES);
    // Plain stores: the driver looks at them only after the atomic store of the index.
    this.#usedElements[slot * 2] = head;
    this.#usedElements[slot * 2 + 1] = writtenBytes;
    this.#nextUsed = (this.#nextUsed + 1) & 0xffff;
    this.#inflight?.complete(head);
    this.#taken[head] = 0;
    this.#inFlight--;
  }

  publish(): boolean {
    const next = this.#nextUsed;
    const batch = (next - this.#publishedUsed) & 0xffff;
    if (batch === 0) return false;
    Atomics.store(this.#used, HALF_USED_INDEX, next);
    this.#log.mark(USED_INDEX_BYTE, 2);
    this.#inflight?.commit(next);
    this.#publishedUsed = next;
    if (!this.#eventIdx) {
      return (Atomics.load(this.#available, HALF_AVAILABLE_FLAGS) & AVAIL_F_NO_INTERRUPT) === 0;
    }
    const event = Atomics.load(this.#available, this.#usedEvent);
    const first = this.#firstPublish;
    this.#firstPublish = false;
    // The driver is waiting for entry `event`: was it among this batch?
    return first || ((next - event - 1) & 0xffff) < batch;
  }

  disableNotifications(): void {
    // With EVENT_IDX the flag is ignored; the driver kicks only when it passes avail_event, which stays behind.
    if (this.#eventIdx) return;
    Atomics.store(this.#used, HALF_USED_FLAGS, USED_F_NO_NOTIFY);
    this.#log.mark(0, 2);
  }

  enableNotifications(): boolean {
    if (this.#eventIdx) {
      Atomics.store(this.#used, this.#availableEvent, this.#nextAvailable);
      this.#log.mark(this.#availableEvent * 2, 2);
    } else {
      Atomics.store(this.#used, HALF_USED_FLAGS, 0);
      this.#log.mark(0, 2);
    }
    // After the store above: a driver that did not see it has published its index before this load.
    return this.toResubmit > 0 || Atomics.load(this.#available, HALF_AVAILABLE_INDEX) !== this.#nextAvailable;
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
  }

  /** Sees how far the driver is. Returns false when nothing is new. */
  #look(): boolean {
    const seen = Atomics.load(this.#available, HALF_AVAILABLE_INDEX);
    const ready = (seen - this.#nextAvailable) & 0xffff;
    if (ready > this.size) {
      throw new RingError(`the available index ${seen} is ${ready} ahead of ${this.#nextAvailable}`, {
        size: this.size,
      });
    }
    this.#seenAvailable = seen;
    return ready !== 0;
  }

  #walk(head: number, chain: Chain): boolean {
    const descriptors = this.#descriptors;
    const space = this.#space;
    const { size } = this;
    chain.reset(this.#memory);
    let index = head;
    for (let steps = 0; steps < size; steps++) {
      const word = index * DESCRIPTOR_WORDS;
      const flagsAndNext = descriptors[word + WORD_LAST]!;
      const address = joinAddress(
        descriptors[word + WORD_ADDRESS_LOW]!,
        descriptors[word + WORD_ADDRESS_HIGH]!,
      );
      const length = descriptors[word + WORD_LENGTH]!;
      if ((flagsAndNext & DESC_F_INDIRECT) !== 0)
        return this.#walkIndirect(chain, flagsAndNext, address, length);
      if (!chain.append(space, address, length, (flagsAndNext & DESC_F_WRITE) !== 0)) return false;
      if ((flagsAndNext & DESC_F_NEXT) === 0) return true;
      index = flagsAndNext >>> 16;
      if (index >= size) throw new RingError(`descriptor ${index} is outside the ring`, { head, size });
    }
    throw new RingError("a chain has a loop", { head, size });
  }

  #walkIndirect(chain: Chain, flags: number, address: number, sizeBytes: number): boolean {
    if (this.#indirect === undefined) throw new RingError("an indirect descriptor was not negotiated");
    if ((flags & DESC_F_NEXT) !== 0) throw new RingError("an indirect descriptor has a next one");
    return this.#indirect.appendLinked(chain, address, sizeBytes);
  }

  #take(head: number, chain: Chain): void {
    chain.head = head;
    this.#taken[head] = 1;
    this.#inFlight++;
  }

  #popResubmitted(chain: Chain): boolean {
    const head = this.#resubmit[this.#resubmitted]!;
    if (!this.#walk(head, chain)) return false;
    this.#resubmitted++;
    this.#take(head, chain);
    return true;
  }

  /**
   * What was popped is what was completed plus what is in flight. After a crash the front-end knows the used index only
   * (QEMU sends that as base), so the next available index is computed. Without anything in flight its base holds.
   */
  #recover(inflight: SplitInflight): void {
    try {
      this.#resubmit = inflight.recover(this.#nextUsed, this.size);
    } catch (error) {
      this.#ring[Symbol.dispose]();
      throw error;
    }
    if (this.#resubmit.length > 0) this.#nextAvailable = (this.#nextUsed + this.#resubmit.length) & 0xffff;
    // A head that waits for its resubmission is as taken as one that was popped, so it is marked 2: not yet completable.
    for (const head of this.#resubmit) this.#taken[head] = 2;
  }

  #badHead(head: number): RingError {
    const why = head >= this.size ? "is outside the ring" : "is offered twice";
    return new RingError(`head ${head} ${why}`, { head, size: this.size });
  }
}
