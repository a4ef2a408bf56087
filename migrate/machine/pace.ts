import type { EventLoop } from "../../src/sys/mod.ts";

/** Does something again and again while it runs: as fast as the devices answer, or with a pause between. */
export class Pace {
  #isPaused = true;
  #timer: (() => void) | undefined;

  constructor(
    readonly loop: EventLoop,
    /** 0: at each call of `again`. */
    readonly pauseMs: number,
    readonly turn: () => void,
  ) {}

  get isPaused(): boolean {
    return this.#isPaused;
  }

  run(): void {
    this.#isPaused = false;
    this.turn();
  }

  pause(): void {
    this.#isPaused = true;
    this.#timer?.();
    this.#timer = undefined;
  }

  /** Something came back: there may be more to do. */
  again(): void {
    if (this.#isPaused) return;
    if (this.pauseMs === 0) this.turn();
    else
      this.#timer ??= this.loop.schedule(this.pauseMs, () => {
        this.#timer = undefined;
        this.turn();
        this.again();
      });
  }
}
