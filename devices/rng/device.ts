import type { DeviceQueue, DeviceRestore, QueueRunner, VhostUserDevice } from "../../src/backend/mod.ts";
import { MAX_RNG_REQUEST_BYTES } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import { type EventLoop, fillRandom } from "../../src/sys/mod.ts";
import { Chain } from "../../src/vring/mod.ts";
import { ByteQuota, type RateLimit } from "../rate-limit/mod.ts";
import { ObjectState } from "../state/mod.ts";
import { checkRngState, RNG_STATE_VERSION, type RngState } from "./state.ts";

export interface RngOptions {
  /** Default: none. */
  readonly rateLimit?: RateLimit | undefined;
  readonly logger?: Logger | undefined;
}

/** Requests that are served before other fds of the loop get their turn. */
const REQUESTS_PER_TURN = 256;

/**
 * A virtio entropy device (virtio 1.3, 5.4): the kernel's getrandom(2) writes straight into the driver's buffers. A request
 * gets what it asks for, up to 64 KiB and to what the rate limit leaves; with nothing left it waits in the ring.
 *
 * @example
 * const device = new RngDevice(loop, { rateLimit: { bytes: 1024, periodMs: 1000 } });
 */
export class RngDevice implements VhostUserDevice {
  readonly deviceType = "rng";
  readonly maxQueues = 1;
  readonly features = 0n;
  readonly protocolFeatures = 0n;
  readonly stateVersion = RNG_STATE_VERSION;
  readonly oldestCompatibleStateVersion = 1;
  readonly #chain = new Chain();
  readonly #quota: ByteQuota;
  readonly #logger: Logger;
  readonly #state: ObjectState<RngState>;
  #queue: DeviceQueue | undefined;
  #cancelTurn: (() => void) | undefined;
  #warned = false;

  /** @throws UsageError for an impossible rate limit */
  constructor(
    readonly loop: EventLoop,
    options: RngOptions = {},
  ) {
    this.#logger = options.logger ?? silentLogger;
    this.#quota = new ByteQuota(loop, options.rateLimit, () => this.#queue?.wake());
    this.#state = new ObjectState({
      deviceType: this.deviceType,
      version: RNG_STATE_VERSION,
      capture: () => this.#quota.capture(),
      check: checkRngState,
      apply: (state) => this.#quota.restore(state),
    });
  }

  ackFeatures(_features: bigint): void {}

  readConfig(): Uint8Array {
    return new Uint8Array(0);
  }

  startQueue(queue: DeviceQueue): QueueRunner {
    this.#queue = queue;
    return { onKick: () => this.#serve(queue) };
  }

  stopQueue(_index: number): void {
    this.#queue = undefined;
    this.#quota.cancel();
    this.#cancelTurn?.();
  }

  /** The rate limit is the host's: a guest that resets its device gets no more for it. */
  reset(): void {}

  snapshot(): Iterable<StateSection> {
    return this.#state.snapshot();
  }

  beginRestore(header: StateHeader): DeviceRestore {
    return this.#state.beginRestore(header);
  }

  #serve(queue: DeviceQueue): void {
    const { ring } = queue;
    let turns = REQUESTS_PER_TURN;
    do {
      ring.disableNotifications();
      while (turns > 0 && this.#quota.availableBytes > 0 && queue.pop(this.#chain)) {
        turns--;
        queue.complete(this.#chain, this.#fill());
      }
      queue.publish();
      if (this.#mustWait(queue, turns)) return;
    } while (ring.enableNotifications() && !queue.space.missPending);
  }

  /** True when the loop comes back to the queue by itself. */
  #mustWait(queue: DeviceQueue, turns: number): boolean {
    if (this.#quota.availableBytes === 0) {
      this.#quota.wait();
      return true;
    }
    if (turns > 0) return false;
    this.#cancelTurn?.();
    this.#cancelTurn = this.loop.schedule(0, () => queue.wake());
    return true;
  }

  /** Fills the chain. Returns the bytes written. */
  #fill(): number {
    const chain = this.#chain;
    const most = Math.min(MAX_RNG_REQUEST_BYTES, this.#quota.availableBytes);
    let done = 0;
    for (let i = chain.readableCount; i < chain.pieceCount && done < most; i++) {
      const count = Math.min(chain.lengths[i]!, most - done);
      fillRandom(chain.addresses[i]!, count);
      done += count;
    }
    if (done === 0 && !this.#warned) {
      this.#warned = true;
      this.#logger.warn("a request for random bytes has no room for any; told once");
    }
    this.#quota.take(done);
    return done;
  }
}
