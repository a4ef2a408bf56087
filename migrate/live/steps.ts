/** When a step of a switch-over was done, by this host's clock. */
export interface Step {
  readonly step: string;
  /** Since the epoch. */
  readonly atMs: number;
}

/** The steps of a switch-over as they happen, for the report: they tell where the time goes in which the machine stands still. */
export class Steps {
  readonly #list: Step[] = [];

  get list(): readonly Step[] {
    return this.#list;
  }

  done(step: string, atMs = performance.timeOrigin + performance.now()): void {
    this.#list.push({ step, atMs: Math.round(atMs * 10) / 10 });
  }
}
