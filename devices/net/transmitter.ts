import type { DeviceQueue } from "../../src/backend/mod.ts";
import { MAX_NET_FRAME_BYTES } from "../../src/limits.ts";
import { Chain } from "../../src/vring/mod.ts";
import type { ByteQuota } from "../rate-limit/mod.ts";
import { ETHERNET_HEADER_BYTES, NET_HEADER_BYTES } from "./config.ts";
import type { LimitedLog } from "./limited-log.ts";
import type { NetPort } from "./net-end.ts";

/** Frames that are served before other fds of the loop get their turn. */
const FRAMES_PER_TURN = 256;
const MIN_FRAME_BYTES = NET_HEADER_BYTES + ETHERNET_HEADER_BYTES;

/** Why a transmitter stopped. "blocked": the port takes nothing now; "limited": the quota is used up; "turn": come back. */
export type TransmitEnd = "idle" | "blocked" | "limited" | "turn";

/** Brings the driver's frames to a port. A chain is done when the port has it: nothing is in flight in the ring. */
export class Transmitter {
  readonly #chain = new Chain();

  constructor(
    readonly queue: DeviceQueue,
    readonly port: NetPort,
    readonly quota: ByteQuota,
    readonly drops: LimitedLog,
  ) {}

  /** Serves the ring until one of the two sides has nothing more. */
  serve(): TransmitEnd {
    const { queue, port } = this;
    let end: TransmitEnd;
    do {
      queue.ring.disableNotifications();
      end = this.#serveTurn();
      queue.publish();
    } while (end === "idle" && queue.ring.enableNotifications() && !queue.space.missPending);
    port.flush?.();
    return end;
  }

  #serveTurn(): TransmitEnd {
    const { queue, port, quota } = this;
    for (let turns = FRAMES_PER_TURN; turns > 0; turns--) {
      if (!port.canSend) return "blocked";
      if (quota.availableBytes === 0) return "limited";
      if (!queue.pop(this.#chain)) return "idle";
      this.#send();
      queue.complete(this.#chain, 0);
    }
    return "turn";
  }

  #send(): void {
    const { readableBytes } = this.#chain;
    if (readableBytes < MIN_FRAME_BYTES || readableBytes > MAX_NET_FRAME_BYTES) {
      this.drops.warn("a frame of an impossible size was dropped", { sizeBytes: readableBytes });
      return;
    }
    this.port.send(this.#chain);
    this.quota.take(readableBytes);
  }
}
