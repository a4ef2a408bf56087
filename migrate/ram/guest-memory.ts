import assert from "node:assert/strict";
import { createMemfd, disposeAll, type Fd } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSource } from "../driver.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";

/** What of a source fills memory. */
export type MemorySource = Pick<VmSource, "loadRegion">;

/**
 * The memory of a machine that is yet to come: a memfd for each region, made before the machine's process, which gets
 * them as they are. Whoever fills them does so while that process starts; the machine runs when all of it was checked.
 */
export class GuestMemory implements Disposable {
  readonly #fds: ReadonlyMap<number, Fd>;
  readonly #regions: readonly SnapshotRegion[];

  private constructor(regions: readonly SnapshotRegion[], fds: ReadonlyMap<number, Fd>) {
    this.#regions = regions;
    this.#fds = fds;
  }

  static create(regions: readonly SnapshotRegion[]): GuestMemory {
    const fds = new Map<number, Fd>();
    try {
      for (const { id, sizeBytes } of regions) fds.set(id, createMemfd("guest memory", sizeBytes));
      return new GuestMemory(regions, fds);
    } catch (error) {
      disposeAll(fds.values());
      throw error;
    }
  }

  /** The memfd of a region; it stays this object's. */
  fd(regionId: number): Fd {
    const fd = this.#fds.get(regionId);
    assert(fd !== undefined, `no memory region ${regionId}`);
    return fd;
  }

  /**
   * Fills all of it from `source`, each piece after its checksum held. Nothing writes to it any more when this ends.
   * @throws FormatError when an extent is damaged, and what the signal was aborted with
   */
  async fill(source: MemorySource, { signal, onProgress }: MoveOptions = {}): Promise<void> {
    const doneBytes = new Map<number, number>();
    const total = this.#regions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const report = (id: number, bytes: number) => {
      doneBytes.set(id, bytes);
      onProgress?.({ phase: "memory", done: doneBytes.values().reduce((a, b) => a + b, 0), total });
    };
    // One after the other: each is loaded on all processors.
    for (const { id, sizeBytes } of this.#regions) {
      await source.loadRegion(id, this.fd(id).number, { signal, onProgress: (done) => report(id, done) });
      report(id, sizeBytes);
    }
  }

  [Symbol.dispose](): void {
    disposeAll(this.#fds.values());
  }
}
