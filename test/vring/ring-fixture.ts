import { GuestMemory } from "../../src/memory/mod.ts";
import { createMemfd, type Fd } from "../../src/sys/mod.ts";
import {
  Chain,
  createDeviceRing,
  createDriverRing,
  type DeviceRing,
  type DeviceRingOptions,
  type DriverRing,
  type DriverRingState,
  INITIAL_PACKED_BASE,
  type RingLayout,
} from "../../src/vring/mod.ts";

export const MEMORY_BYTES = 0x100000;
export const USER_BASE = 0x7f0000000000;
export const MAX_PIECES = 4;
/** Where tests put buffers. */
export const BUFFERS = 0x40000;

const DESCRIPTOR = 0x1000;
const AVAILABLE = 0x2000;
const USED = 0x3000;
const TABLES = 0x8000;

export type Kind = Pick<RingLayout, "packed" | "eventIdx" | "indirect">;

export const KINDS: readonly (Kind & { name: string })[] = [false, true].flatMap((packed) =>
  [false, true].flatMap((eventIdx) =>
    [false, true].map((indirect) => ({
      name: `${packed ? "packed" : "split"}${eventIdx ? ", EVENT_IDX" : ""}${indirect ? ", indirect" : ""}`,
      packed,
      eventIdx,
      indirect,
    })),
  ),
);

/** 1 MiB of guest memory at address 0 with one small ring in it; opens either side any number of times. */
export class RingFixture implements Disposable {
  readonly memory = new GuestMemory();
  readonly layout: RingLayout;
  readonly fd: Fd;

  constructor(kind: Partial<Kind> & { size?: number; logAddress?: number } = {}) {
    this.fd = createMemfd("ring fixture", MEMORY_BYTES);
    this.memory.addRegion(
      { guestAddress: 0, sizeBytes: MEMORY_BYTES, userAddress: USER_BASE, mmapOffset: 0 },
      this.fd.duplicate("ring fixture memory"),
    );
    const packed = kind.packed ?? false;
    this.layout = {
      size: kind.size ?? 8,
      descriptor: DESCRIPTOR,
      available: AVAILABLE,
      used: USED,
      logAddress: kind.logAddress,
      packed,
      eventIdx: kind.eventIdx ?? false,
      indirect: kind.indirect ?? false,
      base: packed ? INITIAL_PACKED_BASE : 0,
    };
  }

  device(options: DeviceRingOptions & { base?: number } = {}): DeviceRing {
    const { base = this.layout.base, ...rest } = options;
    return createDeviceRing(this.memory, this.memory, { ...this.layout, base }, rest);
  }

  driver<Token = number>(state?: DriverRingState<Token>): DriverRing<Token> {
    const indirectArea = { guestAddress: TABLES, maxPieces: MAX_PIECES };
    return createDriverRing<Token>(this.memory, this.layout, { indirectArea, state });
  }

  /** Writes a split descriptor as a driver would that does what it likes. */
  setDescriptor(index: number, address: number | bigint, length: number, flags: number, next = 0): void {
    this.#descriptor(DESCRIPTOR + index * 16, address, length, flags, next);
  }

  /** Writes a packed descriptor. */
  setPacked(index: number, address: number | bigint, length: number, id: number, flags: number): void {
    this.#descriptor(DESCRIPTOR + index * 16, address, length, id, flags);
  }

  /** Writes an entry of a table at any address. */
  setTableEntry(
    table: number,
    index: number,
    address: number,
    length: number,
    third: number,
    fourth = 0,
  ): void {
    this.#descriptor(table + index * 16, address, length, third, fourth);
  }

  /** Makes split heads available by hand. */
  offer(...heads: number[]): void {
    let index = this.half(AVAILABLE + 2);
    for (const head of heads) {
      this.setHalf(AVAILABLE + 4 + (index % this.layout.size) * 2, head);
      index = (index + 1) & 0xffff;
    }
    this.setHalf(AVAILABLE + 2, index);
  }

  half(address: number): number {
    const bytes = new Uint8Array(2);
    this.memory.read(address, bytes);
    return bytes[0]! | (bytes[1]! << 8);
  }

  setHalf(address: number, value: number): void {
    this.memory.write(address, Uint8Array.of(value & 0xff, value >>> 8));
  }

  get availableAddress(): number {
    return AVAILABLE;
  }

  get usedAddress(): number {
    return USED;
  }

  get descriptorAddress(): number {
    return DESCRIPTOR;
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
    this.fd[Symbol.dispose]();
  }

  #descriptor(at: number, address: number | bigint, length: number, third: number, fourth: number): void {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, BigInt(address), true);
    view.setUint32(8, length, true);
    view.setUint16(12, third, true);
    view.setUint16(14, fourth, true);
    this.memory.write(at, bytes);
  }
}

/** The guest-physical view of a chain, as plain data. */
export function describeChain(chain: Chain): { address: number; length: number; writable: boolean }[] {
  return Array.from({ length: chain.pieceCount }, (_, i) => ({
    address: chain.guestAddresses[i]!,
    length: chain.lengths[i]!,
    writable: i >= chain.readableCount,
  }));
}

/** Takes everything that is there. */
export function popAll(ring: DeviceRing): Chain[] {
  const chains: Chain[] = [];
  for (let chain = new Chain(); ring.pop(chain); chain = new Chain()) chains.push(chain);
  return chains;
}
