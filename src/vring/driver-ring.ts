import type { GuestMemory } from "../memory/mod.ts";
import type { DriverPiece, IndirectArea } from "./driver-chain.ts";
import type { DriverRingState } from "./driver-ring-state.ts";
import { PackedDriverRing } from "./packed-driver-ring.ts";
import type { RingLayout } from "./ring-layout.ts";
import { SplitDriverRing } from "./split-driver-ring.ts";

/** A request that the device has completed. */
export interface UsedChain<Token> {
  readonly token: Token;
  /** What the device says it wrote. It is the device's word: check it. */
  readonly writtenBytes: number;
}

/**
 * The driver's side of a ring: owns its descriptors. Addresses are guest-physical, the ring's memory belongs to it alone.
 *
 * @example
 * if (!ring.add([{ guestAddress: 0x1000, sizeBytes: 512, writable: true }], "read sector 0")) waitForUsed();
 * if (ring.kickNeeded()) signalEvent(kick);
 */
export interface DriverRing<Token> extends Disposable {
  readonly size: number;
  /** Offers a chain to the device. Returns false when no descriptors are left; `token` comes back from `popUsed`. */
  add(pieces: readonly DriverPiece[], token: Token): boolean;
  /** Ask once after a batch of `add`: does the device want a kick for it? */
  kickNeeded(): boolean;
  /** The next completed chain. @throws RingError when the device gives back what it never got */
  popUsed(): UsedChain<Token> | undefined;
  /** Asks the device not to notify. */
  disableInterrupts(): void;
  /** Asks the device to notify again. Returns true when something was completed meanwhile: no interrupt comes for it. */
  enableInterrupts(): boolean;
  readonly freeDescriptors: number;
  /** Chains added and not come back. */
  readonly outstanding: number;
  /** What `createDriverRing` continues from, in this process or another. */
  exportState(): DriverRingState<Token>;
}

export interface DriverRingOptions<Token> {
  /** Where indirect tables go. Without it none are used, even where the feature was negotiated. */
  readonly indirectArea?: IndirectArea | undefined;
  /** Continue the ring that is in guest memory. Without it the ring's memory is cleared. */
  readonly state?: DriverRingState<Token> | undefined;
}

/**
 * Opens the driver's side of a ring. `layout.base` is not looked at: a new ring starts at 0, or at INITIAL_PACKED_BASE.
 * @throws StateError for an impossible layout, FormatError for a state that does not fit
 */
export function createDriverRing<Token>(
  memory: GuestMemory,
  layout: RingLayout,
  options: DriverRingOptions<Token> = {},
): DriverRing<Token> {
  return layout.packed
    ? new PackedDriverRing(memory, layout, options)
    : new SplitDriverRing(memory, layout, options);
}
