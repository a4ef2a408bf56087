import { CompatibilityError } from "../../src/errors.ts";
import { DirtyBitmap, PageSet } from "../../src/memory/mod.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";

/** The parts of a machine that write to its memory. */
interface Writers {
  readonly memory: MachineMemory;
  readonly devices: readonly Pick<MachineDevice, "config" | "frontend" | "queues">[];
}

/** One who wants to know what changes: a live migration's passes, the next incremental snapshot. */
export interface DirtyReader extends Disposable {
  /** The pages that were written to since the last call, or since the reader was opened. */
  take(): PageSet;
}

/**
 * Which pages of a machine's memory change: the back-ends mark theirs in the log of vhost-user, the workloads in the same, and
 * the rings' own pages always count as changed, since the driver writes to them in place. The log is on while somebody reads
 * it; any number may, each on its own account.
 *
 * @example
 * using reader = machine.dirty.open();
 * copyAll();
 * while (reader.take().size > few) copy(…);
 */
export class DirtyTracking implements Disposable {
  readonly #writers: Writers;
  readonly #readers = new Set<PageSet>();
  #bitmap: DirtyBitmap | undefined;

  constructor(writers: Writers) {
    this.#writers = writers;
  }

  /** Why the log cannot be had; undefined where it can. */
  get obstacle(): string | undefined {
    const silent = this.#writers.devices.filter(({ frontend }) => !frontend.canLog);
    if (silent.length === 0) return undefined;
    const names = silent.map(({ config }) => config.name).join(", ");
    return `the back-end of ${names} cannot log what it writes (LOG_SHMFD, F_LOG_ALL)`;
  }

  /** From here on nothing that is written is missed, whether the machine runs or not. @throws CompatibilityError */
  open(): DirtyReader {
    this.#start();
    // What others have not taken yet is theirs alone.
    this.#gather();
    const pages = new PageSet(this.#writers.memory.sizeBytes);
    this.#readers.add(pages);
    return {
      take: () => {
        this.#gather();
        const taken = PageSet.of(pages.memoryBytes, pages.bytes);
        pages.clear();
        this.#addRings(taken);
        return taken;
      },
      [Symbol.dispose]: () => {
        this.#readers.delete(pages);
        if (this.#readers.size === 0) this.#stop();
      },
    };
  }

  [Symbol.dispose](): void {
    this.#readers.clear();
    this.#stop();
  }

  #start(): void {
    if (this.#bitmap !== undefined) return;
    const { obstacle } = this;
    if (obstacle !== undefined) throw new CompatibilityError(obstacle);
    const { memory, devices } = this.#writers;
    this.#bitmap = new DirtyBitmap(memory.sizeBytes);
    try {
      memory.guest.dirtyLog = this.#bitmap.ownLog;
      for (const { frontend } of devices) frontend.startLog(this.#bitmap);
    } catch (error) {
      this.#stop();
      throw error;
    }
  }

  #stop(): void {
    const bitmap = this.#bitmap;
    if (bitmap === undefined) return;
    this.#bitmap = undefined;
    this.#writers.memory.guest.dirtyLog = undefined;
    using _ = bitmap;
    for (const { frontend } of this.#writers.devices) frontend.stopLog();
  }

  #gather(): void {
    const written = this.#bitmap?.take();
    if (written !== undefined) for (const pages of this.#readers) pages.addAll(written);
  }

  #addRings(pages: PageSet): void {
    for (const { queues } of this.#writers.devices) {
      for (const queue of queues)
        for (const { guestAddress, sizeBytes } of queue.parts) pages.add(guestAddress, sizeBytes);
    }
  }
}
