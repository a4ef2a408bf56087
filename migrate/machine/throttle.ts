import type { EventLoop } from "../../src/sys/mod.ts";
import type { Workload } from "./workload.ts";

/** Short enough that nobody notices single pauses, long enough that a request fits between two. */
const PERIOD_MS = 20;

/** Slows a machine's workloads down: of each period they submit nothing for some percent. */
export class Throttle implements Disposable {
  #percent = 0;
  #cancel: (() => void) | undefined;

  constructor(
    readonly loop: EventLoop,
    readonly workloads: readonly Pick<Workload, "run" | "pause">[],
    /** Whether the machine runs, and nobody is changing that. */
    readonly mayTouch: () => boolean,
  ) {}

  get percent(): number {
    return this.#percent;
  }

  /** @param percent 0 lets them run as they like, 99 is the most. */
  set(percent: number): void {
    this.#percent = percent;
    this.#cancel?.();
    this.#cancel = undefined;
    if (percent > 0) this.#hold();
    else this.#letRun();
  }

  [Symbol.dispose](): void {
    this.#cancel?.();
  }

  #hold(): void {
    if (this.mayTouch()) for (const workload of this.workloads) workload.pause();
    this.#after((PERIOD_MS * this.#percent) / 100, () => {
      this.#letRun();
      this.#after((PERIOD_MS * (100 - this.#percent)) / 100, () => this.#hold());
    });
  }

  #letRun(): void {
    if (this.mayTouch()) for (const workload of this.workloads) workload.run();
  }

  #after(delayMs: number, then: () => void): void {
    this.#cancel = this.loop.schedule(delayMs, then);
  }
}
