import type { DiskOverlay, FoundState } from "../migrate/mod.ts";
import { PeerError, VhuError } from "../src/errors.ts";
import { parseAddress } from "./address.ts";
import { openDriver } from "./open-driver.ts";

/** How the machine at an address is. A back-end is not asked: a connection may end it. */
export async function lookAtMachine(text: string): Promise<FoundState> {
  const address = parseAddress(text);
  if (address.kind !== "machine" && address.kind !== "qmp") return "unknown";
  try {
    using driver = await openDriver(address, {});
    const { runState, isHeld } = await driver.describe();
    return isHeld ? "held" : runState;
  } catch (error) {
    if (error instanceof PeerError) return error.reconnect ? "gone" : "unknown";
    if (error instanceof VhuError) return "unknown";
    throw error;
  }
}

/** Ends what a copy of its disks has left in the machine at an address; nothing where nobody is there any more. */
export async function dropDiskCopies(text: string): Promise<void> {
  const address = parseAddress(text);
  if (address.kind !== "machine" && address.kind !== "qmp") return;
  try {
    using driver = await openDriver(address, {});
    await driver.dropDiskCopies?.();
  } catch (error) {
    if (!(error instanceof PeerError) || !error.reconnect) throw error;
  }
}

/** Brings the machine at an address back. @throws PeerError, StateError */
export async function resumeMachine(text: string, to: "running" | "suspended"): Promise<void> {
  const address = parseAddress(text);
  if (address.kind !== "machine" && address.kind !== "qmp") return;
  using driver = await openDriver(address, {});
  await driver.reclaim(to);
}

/** @throws PeerError, StateError */
export async function takeBackOverlays(text: string, overlays: readonly DiskOverlay[]): Promise<void> {
  const address = parseAddress(text);
  if (address.kind !== "qmp") return;
  using driver = await openDriver(address, {});
  await driver.takeBackOverlays?.(overlays);
}
