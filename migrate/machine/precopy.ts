import { PageSet } from "../../src/memory/mod.ts";
import type { Mapping } from "../../src/sys/mod.ts";
import { Convergence } from "../convergence.ts";
import { DEFAULT_DOWNTIME_MAX_MS, type PrecopyOptions, type VmSink } from "../driver.ts";
import { NotConvergingError } from "../not-converging-error.ts";
import { savePages } from "../ram/mod.ts";

/** A pass that changes more than this part of what it sent is slowed down, as QEMU's auto-converge does; its steps, too. */
const THROTTLE_ABOVE = 0.5;
const THROTTLE_PERCENT = { first: 20, step: 10, most: 99 } as const;
const PAGE_BYTES = 4096;
/** So little is not worth a pass to measure by. */
const LITTLE_BYTES = 256 << 10;
/** Below this a rate is not a rate: the time of one page. */
const LEAST_MS = 0.01;

/** What a pre-copy asks of the machine. */
export interface PrecopySource {
  /** The pages that were written to since the last call. */
  takeDirty(): Promise<PageSet>;
  throttle(percent: number): Promise<void>;
}

/** Disks that are copied beside the memory. */
export interface DiskPasses {
  /** Copies what is known to have changed. Returns the bytes that have changed since. */
  round(): Promise<number>;
  /** Whether the rest is small enough to stop the machine for. */
  readonly isNear: boolean;
}

/** Passes over a machine's memory while it runs, until the rest is small enough to stop it for. */
export class Precopy {
  readonly #convergence = new Convergence();
  #passNumber = 0;
  #percent = 0;
  #bytesPerMs = 0;

  constructor(
    readonly source: PrecopySource,
    readonly sink: VmSink,
    readonly regionId: number,
    readonly mapping: Mapping,
    readonly options: PrecopyOptions,
    readonly disks?: DiskPasses | undefined,
  ) {}

  /**
   * @param first Pass 0, over all of the memory.
   * @returns the pages that are still to be given, as few as that takes no longer than `downtimeMaxMs`
   * @throws NotConvergingError
   */
  async run(first: () => Promise<void>): Promise<PageSet> {
    let dirty = await this.#pass(this.mapping.sizeBytes, first);
    while (!this.#isNear(dirty)) {
      this.sink.nextMemoryPass();
      const pages = dirty;
      dirty = await this.#pass(pages.size * PAGE_BYTES, () => this.#savePages(pages, true));
    }
    return dirty;
  }

  /** The machine stands still. */
  async last(pages: PageSet): Promise<void> {
    this.sink.nextMemoryPass();
    await this.#savePages(pages, false);
  }

  #savePages(pages: PageSet, isRunning: boolean): Promise<void> {
    const { sink, regionId, mapping, options } = this;
    return savePages(sink, regionId, mapping, pages, { signal: options.signal, isRunning });
  }

  async #pass(sentBytes: number, give: () => Promise<void>): Promise<PageSet> {
    const startMs = performance.now();
    await give();
    await this.#keepBandwidth(sentBytes, startMs);
    const milliseconds = Math.max(performance.now() - startMs, LEAST_MS);
    const diskBytes = (await this.disks?.round()) ?? 0;
    const dirty = await this.source.takeDirty();
    const dirtyBytes = dirty.size * PAGE_BYTES;
    const dirtyBytesPerSecond = (dirtyBytes / (performance.now() - startMs)) * 1000;
    this.#bytesPerMs = sentBytes / milliseconds;
    const { onPass } = this.options;
    onPass?.({
      ...{ passNumber: this.#passNumber, sentBytes, dirtyBytes, milliseconds, dirtyBytesPerSecond },
      throttlePercent: this.#percent,
    });
    this.#passNumber += 1;
    if (this.#isNear(dirty)) return dirty;
    const isRising = await this.#slowDown(dirtyBytes, sentBytes);
    const remainingBytes = dirtyBytes + diskBytes;
    if (!this.#convergence.add(remainingBytes, isRising)) {
      throw new NotConvergingError({
        passes: this.#passNumber,
        remainingBytes,
        diskBytes,
        dirtyBytesPerSecond,
      });
    }
    return dirty;
  }

  /**
   * Whether what is left is expected to take no longer than the machine may stand still. The pass over all of the memory, holes
   * and zeros included, tells nothing of how fast what changes is given.
   */
  #isNear(dirty: PageSet): boolean {
    if (this.disks?.isNear === false) return false;
    const dirtyBytes = dirty.size * PAGE_BYTES;
    const isMeasured = this.#passNumber > 1 || dirtyBytes <= LITTLE_BYTES;
    return (
      isMeasured && dirtyBytes / this.#bytesPerMs <= (this.options.downtimeMaxMs ?? DEFAULT_DOWNTIME_MAX_MS)
    );
  }

  async #slowDown(dirtyBytes: number, sentBytes: number): Promise<boolean> {
    const { first, step, most } = THROTTLE_PERCENT;
    if (!this.options.throttle || this.#percent >= most || dirtyBytes < sentBytes * THROTTLE_ABOVE)
      return false;
    this.#percent = this.#percent === 0 ? first : Math.min(this.#percent + step, most);
    await this.source.throttle(this.#percent);
    return true;
  }

  async #keepBandwidth(sentBytes: number, startMs: number): Promise<void> {
    const { bandwidthMaxBytes, signal } = this.options;
    if (bandwidthMaxBytes === undefined) return;
    const dueMs = startMs + (sentBytes / bandwidthMaxBytes) * 1000;
    while (performance.now() < dueMs) {
      signal?.throwIfAborted();
      await Bun.sleep(Math.min(dueMs - performance.now(), 50));
    }
  }
}

/** Both together. */
export function joined(one: PageSet, other: PageSet): PageSet {
  const all = PageSet.of(one.memoryBytes, one.bytes);
  all.addAll(other);
  return all;
}
