import { StateError } from "../errors.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import type { Chain } from "./chain.ts";
import { PackedDeviceRing } from "./packed-device-ring.ts";
import { PackedInflight } from "./packed-inflight.ts";
import type { RingLayout } from "./ring-layout.ts";
import { SplitDeviceRing } from "./split-device-ring.ts";
import { SplitInflight } from "./split-inflight.ts";

/**
 * The device's side of a ring. Synchronous, for one thread. Its views are void once their memory region is removed.
 *
 * @example
 * const chain = new Chain();
 * do {
 *   ring.disableNotifications();
 *   while (ring.pop(chain)) ring.complete(chain, serve(chain));
 *   if (ring.publish()) signalEvent(call);
 * } while (ring.enableNotifications());
 */
export interface DeviceRing extends Disposable {
  readonly size: number;
  /**
   * Takes the next chain. Those that an earlier process had taken and not completed come first, in their order. Returns
   * false when there is none, or when a translation is missing (`AddressSpace.missPending`): try again after the update.
   * Looks at no more descriptors than the ring, or one indirect table, holds.
   * @throws RingError when the driver broke a rule; the ring is as before
   */
  pop(chain: Chain): boolean;
  /** Gives a chain back; the driver sees it at the next `publish`. `writtenBytes`: from the first writable byte on. */
  complete(chain: Chain, writtenBytes: number): void;
  /** Shows all completions to the driver. Returns true when it wants a notification. */
  publish(): boolean;
  /** Asks the driver not to kick. */
  disableNotifications(): void;
  /** Asks the driver to kick again. Returns true when something came in meanwhile: go on, no kick will come for it. */
  enableNotifications(): boolean;
  /** What GET_VRING_BASE answers. The positions count what was popped; drain, or keep an inflight region, before a stop. */
  readonly base: number;
  /** Chains popped and not completed. */
  readonly inFlight: number;
  /** Chains of an earlier process that `pop` has still to hand out. */
  readonly toResubmit: number;
}

export type InflightQueue = SplitInflight | PackedInflight;

export interface DeviceRingOptions {
  /** Where to record what is in flight, so that the next process can take it up. */
  readonly inflight?: InflightQueue | undefined;
  /** True while F_LOG_ALL is set. Without it everything is logged for as long as the memory has a dirty log. */
  readonly logging?: (() => boolean) | undefined;
}

/**
 * Opens the device's side of a ring.
 * @throws StateError when a part of it lies outside memory or is misaligned, the size is impossible, or the inflight
 *   region does not fit the ring
 */
export function createDeviceRing(
  memory: GuestMemory,
  space: AddressSpace,
  layout: RingLayout,
  options: DeviceRingOptions = {},
): DeviceRing {
  const { inflight, logging } = options;
  if (layout.packed) {
    if (inflight instanceof SplitInflight) throw mismatch("packed");
    return new PackedDeviceRing(memory, space, layout, inflight, logging);
  }
  if (inflight instanceof PackedInflight) throw mismatch("split");
  return new SplitDeviceRing(memory, space, layout, inflight, logging);
}

function mismatch(kind: string): StateError {
  return new StateError(`the inflight region's layout is not that of a ${kind} ring`);
}
