import { ProtocolError, StateError } from "../errors.ts";
import type { GuestMemory } from "../memory/mod.ts";
import type { RingLayout } from "../vring/mod.ts";
import type { VringAddr } from "../wire/mod.ts";
import type { Session } from "./session.ts";
import type { VringState } from "./vring-state.ts";

/** VHOST_VRING_F_LOG: the used ring is to be logged. What buffers receive is logged with F_LOG_ALL alone. */
const ADDRESS_FLAG_LOG = 1;

interface Surroundings {
  readonly session: Session;
  readonly memory: GuestMemory;
}

/**
 * Where a ring lies, from what was set and negotiated.
 * @throws StateError when something was not set, ProtocolError when it lies outside memory
 */
export function vringLayout({ session, memory }: Surroundings, ring: VringState): RingLayout {
  if (ring.num === 0 || ring.address === undefined) {
    throw new StateError(`ring ${ring.index} cannot start: SET_VRING_NUM and SET_VRING_ADDR must come first`);
  }
  const { descriptor, available, used } = ring.address;
  const packed = session.has("RING_PACKED");
  const base = ring.initialBase(packed);
  if (!packed && base > 0xffff)
    throw new ProtocolError(`is ${base}, a split ring's has 16 bits`, "SET_VRING_BASE", "num");
  return {
    size: ring.num,
    descriptor: ringAddress({ session, memory }, descriptor, "descriptor"),
    available: ringAddress({ session, memory }, available, "available"),
    used: ringAddress({ session, memory }, used, "used"),
    logAddress: logAddress(ring.address),
    packed,
    eventIdx: session.has("RING_EVENT_IDX"),
    indirect: session.has("RING_INDIRECT_DESC"),
    base,
  };
}

/** @throws ProtocolError when a part begins outside memory */
export function checkVringAddress(around: Surroundings, address: VringAddr): void {
  // Memory may legally come after the addresses: only what is known already is looked at, the rest at the start.
  if (around.memory.regions.length === 0 || around.session.has("ACCESS_PLATFORM")) return;
  for (const field of ["descriptor", "available", "used"] as const)
    ringAddress(around, address[field], field);
}

/** A migration turns the logging of a running ring on and off; it may not move the ring. */
export function movesRing(from: VringAddr, to: VringAddr): boolean {
  return from.descriptor !== to.descriptor || from.available !== to.available || from.used !== to.used;
}

/** Guest address by which the used ring is logged; undefined: it is not. */
export function logAddress({ flags, log }: VringAddr): number | undefined {
  return (flags & ADDRESS_FLAG_LOG) === 0 ? undefined : log;
}

/** SET_VRING_ADDR names user addresses; with ACCESS_PLATFORM I/O virtual ones, with GPA_ADDRESSES guest ones. */
function ringAddress({ session, memory }: Surroundings, address: number, field: string): number {
  if (session.has("ACCESS_PLATFORM") || session.hasProtocol("GPA_ADDRESSES")) return address;
  const guest = memory.userToGuest(address, 1);
  if (guest < 0) throw new ProtocolError("is in no memory region", "SET_VRING_ADDR", field);
  return guest;
}
