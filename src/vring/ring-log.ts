import type { GuestMemory } from "../memory/mod.ts";
import type { Chain } from "./chain.ts";

/** Marks what a ring writes to guest memory in the dirty log, while there is one and logging is on. */
export class RingLog {
  readonly #memory: GuestMemory;
  readonly #logAddress: number | undefined;
  readonly #logging: (() => boolean) | undefined;

  /** @param logAddress guest address of what `mark` counts from; undefined: the ring itself is not logged */
  constructor(memory: GuestMemory, logAddress: number | undefined, logging: (() => boolean) | undefined) {
    this.#memory = memory;
    this.#logAddress = logAddress;
    this.#logging = logging;
  }

  get active(): boolean {
    return this.#memory.dirtyLog !== undefined && (this.#logging === undefined || this.#logging());
  }

  mark(offset: number, sizeBytes: number): void {
    if (this.#logAddress === undefined || !this.active) return;
    this.#memory.dirtyLog?.mark(this.#logAddress + offset, sizeBytes);
  }

  chain(chain: Chain, writtenBytes: number): void {
    if (this.active) chain.markWritten(writtenBytes);
  }
}
