import type { FoundState } from "../migrate/mod.ts";
import { PeerError, VhuError } from "../src/errors.ts";
import { parseAddress } from "./address.ts";
import { openDriver } from "./open-driver.ts";

/** How the machine at an address is. A back-end is not asked: a connection may end it. */
export async function lookAtMachine(text: string): Promise<FoundState> {
  const address = parseAddress(text);
  if (address.kind !== "machine" && address.kind !== "qmp") return "unknown";
  try {
    using driver = await openDriver(address, {});
    return (await driver.describe()).runState;
  } catch (error) {
    if (error instanceof PeerError) return error.reconnect ? "gone" : "unknown";
    if (error instanceof VhuError) return "unknown";
    throw error;
  }
}

/** Lets the machine at an address run. @throws PeerError, StateError */
export async function resumeMachine(text: string): Promise<void> {
  const address = parseAddress(text);
  if (address.kind !== "machine" && address.kind !== "qmp") return;
  using driver = await openDriver(address, {});
  await driver.reclaim();
}
