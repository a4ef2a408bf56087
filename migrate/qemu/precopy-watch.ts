import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";
import { Convergence } from "../convergence.ts";
import type { PrecopyOptions } from "../driver.ts";
import { NotConvergingError } from "../not-converging-error.ts";
import { type QmpPrecopy, qmpPrecopy } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

const POLL_MS = 50;
/** QEMU answers nothing while it sends the last of the state, as fast as that is taken. */
const ANSWER_TIMEOUT_MS = DEFAULT_TRANSFER_IDLE_TIMEOUT_MS;

/** Looks at a migration of a VM that runs: reports its passes, and says when they lead nowhere. */
export class PrecopyWatch {
  readonly #client: QmpClient;
  readonly #options: Pick<PrecopyOptions, "onPass">;
  readonly #convergence = new Convergence();
  /** Of the pass that is under way: QEMU's count of looks at the dirty log, the bytes sent before it, when it began. */
  #looks = 0;
  #sentBefore = 0;
  #startMs = performance.now();
  #throttlePercent = 0;

  constructor(client: QmpClient, options: Pick<PrecopyOptions, "onPass">) {
    this.#client = client;
    this.#options = options;
  }

  /**
   * Does `work` under the watch, which ends it when there is no point in going on.
   * @throws NotConvergingError, PeerError when QEMU is gone, and what `work` throws
   */
  async beside<T>(work: (signal: AbortSignal) => Promise<T>, outer: AbortSignal | undefined): Promise<T> {
    const [isOver, failed] = [new AbortController(), new AbortController()];
    // Not waited for where the work is done: the VM stands still meanwhile.
    this.run(isOver.signal).catch((error: unknown) => failed.abort(error));
    try {
      return await work(AbortSignal.any([failed.signal, ...(outer === undefined ? [] : [outer])]));
    } finally {
      isOver.abort();
    }
  }

  /** Until `signal` says that the stream is over. @throws NotConvergingError, PeerError when QEMU is gone */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const state = await this.#client.request("query-migrate", {
        answer: qmpPrecopy,
        timeoutMs: ANSWER_TIMEOUT_MS,
      });
      // With "device" the VM stands still: what it changes is over.
      if (state.status === "active") this.look(state);
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, POLL_MS);
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      clearTimeout(timer);
    }
  }

  /** One answer of `query-migrate`. @throws NotConvergingError */
  look({ ram, "cpu-throttle-percentage": throttlePercent = 0 }: QmpPrecopy): void {
    if (ram === undefined || ram["dirty-sync-count"] === this.#looks) return;
    const passNumber = ram["dirty-sync-count"] - 2;
    const nowMs = performance.now();
    // The first look finds all of the memory: no pass is over.
    if (this.#looks > 0) {
      // QEMU knows it a second after it has begun.
      const dirtyBytesPerSecond = ram["dirty-pages-rate"] * ram["page-size"] || undefined;
      this.#options.onPass?.({
        passNumber,
        sentBytes: ram.transferred - this.#sentBefore,
        dirtyBytes: ram.remaining,
        milliseconds: nowMs - this.#startMs,
        dirtyBytesPerSecond,
        throttlePercent,
      });
      if (!this.#convergence.add(ram.remaining, throttlePercent > this.#throttlePercent)) {
        const passes = passNumber + 1;
        throw new NotConvergingError({ passes, remainingBytes: ram.remaining, dirtyBytesPerSecond });
      }
    }
    this.#looks = ram["dirty-sync-count"];
    this.#sentBefore = ram.transferred;
    this.#startMs = nowMs;
    this.#throttlePercent = throttlePercent;
  }
}
