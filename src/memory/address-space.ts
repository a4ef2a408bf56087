/**
 * What the addresses inside a ring mean: guest-physical addresses (GuestMemory) or I/O virtual ones (Iotlb).
 * Addresses are numbers; whoever reads them from outside refuses those above 2^53. Nothing here allocates.
 */
export interface AddressSpace {
  /** The address in this process of a range that is contiguous here, else -1. `write`: the device will write to it. */
  nativeAddress(address: number, sizeBytes: number, write?: boolean): number;
  /** Bytes from `address` on that are contiguous in this process, 0 where nothing is mapped. */
  contiguousBytes(address: number, write?: boolean): number;
  /** The guest-physical address, which is what the dirty log counts in; -1 if unknown. */
  toGuest(address: number): number;
  /** True when a translation is missing that the front-end can still deliver: try again later. */
  readonly missPending: boolean;
}
