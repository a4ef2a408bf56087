import { StateError } from "../errors.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import { checkRingSize, type RingLayout } from "./ring-layout.ts";
import {
  AVAILABLE_ALIGNMENT,
  DESCRIPTOR_ALIGNMENT,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_WORDS,
  EVENT_ALIGNMENT,
  EVENT_BYTES,
  USED_ALIGNMENT,
  USED_RING_BYTE,
} from "./ring-offsets.ts";

interface Part {
  readonly name: string;
  readonly address: number;
  readonly sizeBytes: number;
  readonly alignment: number;
  /** The device writes to it: what an IOTLB entry must permit. */
  readonly write: boolean;
}

function refuse({ name, address, sizeBytes, alignment }: Part, why: string): StateError {
  return new StateError(`the ${name} at 0x${address.toString(16)} (${sizeBytes} bytes) ${why}`, {
    details: { address, sizeBytes, alignment },
  });
}

/** Views of the parts of a ring, checked before they are made; given back together. */
class RingParts implements Disposable {
  readonly #memory: GuestMemory;
  readonly #space: AddressSpace;
  readonly #windows: ArrayBuffer[] = [];

  constructor(memory: GuestMemory, space: AddressSpace) {
    this.#memory = memory;
    this.#space = space;
  }

  open(part: Part): ArrayBuffer {
    const { address, sizeBytes, alignment } = part;
    if (!Number.isSafeInteger(address) || address < 0 || address % alignment !== 0) {
      throw refuse(part, `is not at a multiple of ${alignment}`);
    }
    if (this.#space.nativeAddress(address, sizeBytes, part.write) < 0) {
      throw refuse(part, "is not wholly inside one memory region");
    }
    const window = this.#memory.window(this.#space.toGuest(address), sizeBytes);
    this.#windows.push(window);
    return window;
  }

  [Symbol.dispose](): void {
    for (const window of this.#windows) this.#memory.closeWindow(window);
  }
}

/** Views of a split ring. */
export interface SplitRingMemory extends Disposable {
  /** Four words a descriptor. */
  readonly descriptors: Uint32Array;
  readonly available: Uint16Array;
  readonly used: Uint16Array;
  /** {id, length} pairs: the used ring from its first element on. */
  readonly usedElements: Uint32Array;
}

/** @throws StateError when a part is misaligned, outside memory, or the size is impossible */
export function openSplitRing(memory: GuestMemory, space: AddressSpace, layout: RingLayout): SplitRingMemory {
  checkRingSize(layout);
  const { size } = layout;
  const eventBytes = layout.eventIdx ? 2 : 0;
  const parts = new RingParts(memory, space);
  try {
    const descriptors = parts.open({
      name: "descriptor table",
      address: layout.descriptor,
      sizeBytes: size * DESCRIPTOR_BYTES,
      alignment: DESCRIPTOR_ALIGNMENT,
      write: false,
    });
    const available = parts.open({
      name: "available ring",
      address: layout.available,
      sizeBytes: 4 + size * 2 + eventBytes,
      alignment: AVAILABLE_ALIGNMENT,
      write: false,
    });
    const used = parts.open({
      name: "used ring",
      address: layout.used,
      sizeBytes: USED_RING_BYTE + size * 8 + eventBytes,
      alignment: USED_ALIGNMENT,
      write: true,
    });
    return {
      descriptors: new Uint32Array(descriptors),
      available: new Uint16Array(available),
      used: new Uint16Array(used),
      usedElements: new Uint32Array(used, USED_RING_BYTE, size * 2),
      [Symbol.dispose]: () => parts[Symbol.dispose](),
    };
  } catch (error) {
    parts[Symbol.dispose]();
    throw error;
  }
}

/** Views of a packed ring. */
export interface PackedRingMemory extends Disposable {
  /** Four words a descriptor. */
  readonly words: Uint32Array;
  /** The same memory in halves: eight a descriptor. */
  readonly halves: Uint16Array;
  /** What the driver says of interrupts: one word. */
  readonly driverEvent: Uint32Array;
  /** What the device says of kicks: one word. */
  readonly deviceEvent: Uint32Array;
}

/** @throws StateError when a part is misaligned, outside memory, or the size is impossible */
export function openPackedRing(
  memory: GuestMemory,
  space: AddressSpace,
  layout: RingLayout,
): PackedRingMemory {
  checkRingSize(layout);
  const parts = new RingParts(memory, space);
  const event = { sizeBytes: EVENT_BYTES, alignment: EVENT_ALIGNMENT };
  try {
    const descriptors = parts.open({
      name: "descriptor ring",
      address: layout.descriptor,
      sizeBytes: layout.size * DESCRIPTOR_BYTES,
      alignment: DESCRIPTOR_ALIGNMENT,
      write: true,
    });
    const driver = { name: "driver event area", address: layout.available, write: false, ...event };
    const device = { name: "device event area", address: layout.used, write: true, ...event };
    return {
      words: new Uint32Array(descriptors, 0, layout.size * DESCRIPTOR_WORDS),
      halves: new Uint16Array(descriptors),
      driverEvent: new Uint32Array(parts.open(driver)),
      deviceEvent: new Uint32Array(parts.open(device)),
      [Symbol.dispose]: () => parts[Symbol.dispose](),
    };
  } catch (error) {
    parts[Symbol.dispose]();
    throw error;
  }
}
