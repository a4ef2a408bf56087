import type { VhuError } from "../../errors.ts";
import type { Logger } from "../../logger.ts";
import type { VhostUserDevice } from "../device.ts";
import type { RingSurroundings } from "../ring-set.ts";
import { vringLayout } from "../vring-layout.ts";
import type { VringState } from "../vring-state.ts";
import type { Call, WorkerRings } from "./worker-rings.ts";

/** What the set of rings does for those that run in Workers. */
export interface RingOwner {
  /** Where the front-end gave no fd. */
  callOf(ring: VringState): (() => void) | undefined;
  onBroken(ring: VringState, error: VhuError): void;
}

/** How a device's vrings start and stop in ring Workers. */
export class RingsInWorkers {
  constructor(
    readonly device: VhostUserDevice,
    readonly around: RingSurroundings,
    readonly logger: Logger,
    readonly drainTimeoutMs: number,
    readonly workers: WorkerRings | undefined,
    readonly owner: RingOwner,
  ) {}

  /** I/O virtual addresses are translated on the control thread, so their rings run there. */
  get areUsed(): boolean {
    return (
      this.workers !== undefined &&
      this.device.startQueueInWorker !== undefined &&
      this.around.space === this.around.memory
    );
  }

  callOf(ring: VringState): Call {
    return ring.call ?? this.owner.callOf(ring);
  }

  run(ring: VringState): void {
    const { index, kick, enabled } = ring;
    const { memory, inflight, session } = this.around;
    const workers = this.workers!;
    workers.setMemory(memory);
    workers.setLogging(session.has("LOG_ALL"));
    const parameters = this.device.startQueueInWorker!(index);
    try {
      workers.start({
        index,
        layout: vringLayout(this.around, ring),
        inflight: inflight?.shareQueue(index),
        kick,
        call: this.callOf(ring),
        polled: kick === undefined && !session.hasProtocol("INBAND_NOTIFICATIONS"),
        enabled,
        parameters,
        onError: (error) => this.owner.onBroken(ring, error),
      });
      ring.isInWorker = true;
    } catch (error) {
      this.device.stopQueue(index);
      throw error;
    }
  }

  /** @throws StateError when it does not stop in time. The ring is lost then, and the Worker's while that is late */
  stop(ring: VringState, skipDrain: boolean): void {
    const workers = this.workers!;
    const drain = skipDrain ? "skip" : { timeoutMs: this.drainTimeoutMs };
    try {
      // One whose Worker was late and is back has been stopped meanwhile.
      if (workers.has(ring.index)) ring.base = workers.stop(ring.index, drain);
      this.logger.debug("queue stops", { index: ring.index, base: ring.base });
    } catch (error) {
      // Where it stood is unknown: it must not go on.
      ring.broken = true;
      ring.isLost = true;
      throw error;
    } finally {
      ring.isInWorker = workers.has(ring.index);
      if (!ring.isInWorker) this.device.stopQueue(ring.index);
    }
  }
}
