import { StateError } from "../../src/errors.ts";
import type { PageSet } from "../../src/memory/mod.ts";
import type { DirtyReader } from "./dirty-tracking.ts";
import type { Machine } from "./machine.ts";

/** The snapshot that a machine knows as its last one, and what of the memory has changed since. */
export class Checkpoint implements Disposable {
  readonly #machine: Machine;
  #reader: DirtyReader | undefined;
  #root: string | undefined;
  /** What was taken from the reader and is in no snapshot yet: a save may fail after it was asked. */
  #changed: PageSet | undefined;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /**
   * The machine is as it is in the snapshot with this root; from here on its changes are counted.
   * @param runCount The machine's, when it was exported.
   * @throws StateError when it has run since, CompatibilityError where a back-end has no dirty log
   */
  set(root: string, runCount: number): void {
    if (this.#machine.runState !== "suspended" || this.#machine.runCount !== runCount)
      throw new StateError("the machine runs: it is no longer as it was saved");
    this.#reader ??= this.#machine.dirty.open();
    this.#reader.take();
    this.#changed = undefined;
    this.#root = root;
  }

  /** The pages that may differ from the snapshot with this root; undefined where nobody knows. */
  changedSince(root: string): PageSet | undefined {
    if (this.#reader === undefined || root !== this.#root) return undefined;
    const taken = this.#reader.take();
    if (this.#changed !== undefined) taken.addAll(this.#changed);
    this.#changed = taken;
    return taken;
  }

  [Symbol.dispose](): void {
    this.#reader?.[Symbol.dispose]();
    this.#reader = undefined;
  }
}
