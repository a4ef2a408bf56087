import { expect } from "bun:test";
import { GuestMemory } from "../../src/memory/mod.ts";
import { createMemfd, type Fd, signalEvent } from "../../src/sys/mod.ts";
import { type RecordedExchange, regionOf } from "./recorded-session.ts";

const PAGE_BYTES = 4096;
const DESC_F_WRITE = 2;

export interface RecordedRing {
  descriptor: number;
  available: number;
  used: number;
  size: number;
  base: number;
  /** Where used ring writes are logged. */
  log: number;
  isLogged: boolean;
  kick: Fd | undefined;
}

/** What a recording holds, as figures. */
export interface ReplayCounts {
  messages: number;
  replies: number;
  /** Chains that the guest's side put into rings and got back. */
  chains: number;
  /** Pages of used rings that were found in the dirty log. */
  loggedPages: number;
}

/** The VM of a recording: its memory and its rings, which live through all of its sessions. */
export class RecordedGuest implements Disposable {
  readonly counts: ReplayCounts = { messages: 0, replies: 0, chains: 0, loggedPages: 0 };
  readonly #memory = new GuestMemory();
  readonly #ram: Fd;
  readonly #rings = new Map<number, RecordedRing>();

  constructor(sessions: readonly (readonly RecordedExchange[])[]) {
    const regions = sessions
      .flat()
      .filter(({ request }) => request.name === "ADD_MEM_REG")
      .map(({ request }) => regionOf(request.fields));
    const ramBytes = Math.max(...regions.map(({ mmapOffset, sizeBytes }) => mmapOffset + sizeBytes));
    this.#ram = createMemfd("recorded guest", ramBytes);
    const distinct = new Map(regions.map((region) => [region.userAddress, region]));
    for (const region of distinct.values()) this.#memory.addRegion(region, this.#ram.duplicate());
  }

  get ram(): Fd {
    return this.#ram;
  }

  ring(index: number): RecordedRing {
    let ring = this.#rings.get(index);
    if (ring === undefined) {
      ring = {
        descriptor: 0,
        available: 0,
        used: 0,
        size: 0,
        base: 0,
        log: 0,
        isLogged: false,
        kick: undefined,
      };
      this.#rings.set(index, ring);
    }
    return ring;
  }

  /** The guest's side of a ring that starts: empty, at its base. */
  prepareRing(ring: RecordedRing): void {
    for (const address of [ring.available, ring.used]) this.#setHalf(address + 2, ring.base);
    // One writable buffer, which is offered again and again; it lies behind the table, where nothing else is.
    const buffer = ring.descriptor + PAGE_BYTES * 4;
    const descriptor = new Uint8Array(new ArrayBuffer(16));
    const view = new DataView(descriptor.buffer);
    view.setBigUint64(0, BigInt(this.#guest(buffer)), true);
    view.setUint32(8, 512, true);
    view.setUint16(12, DESC_F_WRITE, true);
    this.#memory.write(this.#guest(ring.descriptor), descriptor);
  }

  /** Offers chains until the ring stands at `base`, kicks, and sees each come back. */
  advance(ring: RecordedRing, base: number, turn: () => void): void {
    for (let left = (base - ring.base) & 0xffff; left > 0; ) {
      const count = Math.min(left, ring.size);
      ring.base = (ring.base + count) & 0xffff;
      this.#setHalf(ring.available + 2, ring.base);
      signalEvent(ring.kick!);
      turn();
      expect(this.#half(ring.used + 2), "chains that came back").toBe(ring.base);
      this.counts.chains += count;
      left -= count;
    }
  }

  #guest(userAddress: number): number {
    return this.#memory.userToGuest(userAddress, 1);
  }

  #half(userAddress: number): number {
    const bytes = new Uint8Array(2);
    this.#memory.read(this.#guest(userAddress), bytes);
    return bytes[0]! | (bytes[1]! << 8);
  }

  #setHalf(userAddress: number, value: number): void {
    this.#memory.write(this.#guest(userAddress), Uint8Array.of(value & 0xff, value >>> 8));
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
    this.#ram[Symbol.dispose]();
  }
}
