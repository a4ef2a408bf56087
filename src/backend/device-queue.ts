import { VhuError } from "../errors.ts";
import type { AddressSpace, GuestMemory } from "../memory/mod.ts";
import { type Fd, signalEvent } from "../sys/mod.ts";
import { Chain, type DeviceRing } from "../vring/mod.ts";

/** A running queue as a device sees it: chains in, completions out. */
export class DeviceQueue {
  readonly #chain = new Chain();
  /** Replaced by SET_VRING_CALL while the queue runs. */
  call: (() => void) | undefined;
  /** Asks for the runner's `onKick`, as a kick would; nothing happens while the ring is disabled. Set when it runs. */
  wake: () => void = () => {};

  constructor(
    readonly index: number,
    readonly size: number,
    readonly ring: DeviceRing,
    readonly memory: GuestMemory,
    readonly space: AddressSpace = memory,
  ) {}

  /**
   * Serves every chain that is in the ring, one after the other, and notifies the driver once per batch.
   *
   * @param process works on one chain and returns the bytes it wrote. The chain is valid during the call.
   */
  serve(process: (chain: Chain) => number): void {
    const { ring } = this;
    do {
      ring.disableNotifications();
      while (ring.pop(this.#chain)) ring.complete(this.#chain, process(this.#chain));
      this.publish();
      // A chain whose addresses the front-end has yet to translate stays in the ring: going on would spin.
    } while (ring.enableNotifications() && !this.space.missPending);
  }

  /** Takes the next chain into `chain`; false when there is none. For devices that complete chains later. */
  pop(chain: Chain): boolean {
    return this.ring.pop(chain);
  }

  complete(chain: Chain, writtenBytes: number): void {
    this.ring.complete(chain, writtenBytes);
  }

  /** Makes completions visible and notifies the driver if it wants that. */
  publish(): void {
    if (this.ring.publish()) this.call?.();
  }
}

/**
 * Signals an fd of the front-end's when it is called; it never blocks. The front-end may have sent what cannot be written:
 * that is told once, and hurts nobody but the front-end.
 */
export function signalByFd(fd: Fd, onError: (error: VhuError) => void): () => void {
  let failed = false;
  return () => {
    if (failed) return;
    try {
      signalEvent(fd);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      failed = true;
      onError(error);
    }
  };
}
