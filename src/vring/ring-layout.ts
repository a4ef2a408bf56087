import { StateError } from "../errors.ts";
import { MAX_QUEUE_SIZE } from "../limits.ts";

/** What SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE and the features say of one ring. */
export interface RingLayout {
  /** Descriptors: 1 to 32768, for a split ring a power of two. */
  readonly size: number;
  /** Address (guest-physical, or I/O virtual behind an Iotlb) of the descriptor table or packed descriptor ring. */
  readonly descriptor: number;
  /** Address of the available ring; packed: of the driver's event suppression structure. */
  readonly available: number;
  /** Address of the used ring; packed: of the device's event suppression structure. */
  readonly used: number;
  /** Guest-physical address by which writes to the used ring are logged; undefined: they are not. */
  readonly logAddress?: number | undefined;
  readonly packed: boolean;
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  readonly eventIdx: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
  /** As SET_VRING_BASE gives it. Split: the next available index. Packed: see `packBase`. */
  readonly base: number;
}

/** @throws StateError */
export function checkRingSize(layout: Pick<RingLayout, "size" | "packed">): void {
  const { size, packed } = layout;
  const inRange = Number.isInteger(size) && size >= 1 && size <= MAX_QUEUE_SIZE;
  if (inRange && (packed || (size & (size - 1)) === 0)) return;
  throw new StateError(
    `a ${packed ? "packed" : "split"} ring cannot have ${size} descriptors: 1 to ${MAX_QUEUE_SIZE}` +
      (packed ? "" : ", a power of two"),
    { details: { size, packed } },
  );
}

/** The two positions of a packed ring. */
export interface PackedBase {
  readonly availableIndex: number;
  readonly availableWrap: boolean;
  readonly usedIndex: number;
  readonly usedWrap: boolean;
}

/** Bits 0-14 available index, 15 its wrap counter, 16-30 used index, 31 its wrap counter (vhost-user spec). */
export function packBase(base: PackedBase): number {
  const low = base.availableIndex | (base.availableWrap ? 0x8000 : 0);
  const high = base.usedIndex | (base.usedWrap ? 0x8000 : 0);
  return high * 0x10000 + low;
}

/** @throws StateError when an index lies outside the ring */
export function unpackBase(value: number, size: number): PackedBase {
  const base = {
    availableIndex: value & 0x7fff,
    availableWrap: (value & 0x8000) !== 0,
    usedIndex: (value >>> 16) & 0x7fff,
    usedWrap: value >>> 31 === 1,
  };
  if (base.availableIndex < size && base.usedIndex < size) return base;
  throw new StateError(`base 0x${value.toString(16)} lies outside a packed ring of ${size} descriptors`, {
    details: { base: value, size },
  });
}

/** A packed ring starts with both wrap counters at 1 (virtio 1.2, 2.8.1). */
export const INITIAL_PACKED_BASE = 0x80008000;
