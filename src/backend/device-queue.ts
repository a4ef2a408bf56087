import type { GuestMemory } from "../memory/mod.ts";
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
    } while (ring.enableNotifications());
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

/** A call that signals an fd of the front-end's; it never blocks. */
export function callByFd(fd: Fd): () => void {
  return () => void signalEvent(fd);
}
