/** Spins that are left out after the longest run of vain ones. */
const MAX_SKIPPED = 1024;

/**
 * How long a ring Worker looks for work before it sleeps. A sleep costs a wake-up (about 25 us across cores in a VM), a vain
 * spin costs the CPU that whoever brings the work may need: on one core it always does. So each spin in vain doubles
 * the number of times that spinning is left out, and one that found something resets it.
 */
export class SpinPolicy {
  /** Polls between two looks at the clock, which costs more than a poll of an empty ring. */
  static readonly POLLS_PER_LOOK = 16;
  readonly #spinMs: number;
  #endMs = 0;
  #penalty = 1;
  #skip = 0;

  /** @param spinUs at most this long; 0: never */
  constructor(spinUs: number) {
    this.#spinMs = spinUs / 1000;
  }

  /** False when this time there is to be no spin. */
  begin(): boolean {
    if (this.#spinMs === 0) return false;
    if (this.#skip > 0) {
      this.#skip--;
      return false;
    }
    this.#endMs = performance.now() + this.#spinMs;
    return true;
  }

  found(): true {
    this.#penalty = 1;
    return true;
  }

  /** False when the time is over. */
  goesOn(): boolean {
    if (performance.now() < this.#endMs) return true;
    this.#skip = this.#penalty;
    this.#penalty = Math.min(this.#penalty * 2, MAX_SKIPPED);
    return false;
  }
}
