/**
 * The memory that a writer shares with its compression Workers: counters, and slots of one window each. Jobs are numbered;
 * job N uses slot N modulo their count. A Worker takes the next number, waits until it is posted, works, and says done.
 */
import { viewOf } from "./bytes.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";
import { type PackedRun, type PackedWindow, WINDOW_PAGES, WINDOW_ROOM_BYTES } from "./pack-window.ts";

export const SlotState = { free: 0, posted: 1, done: 2, failed: 3 } as const;

/** Indices of the 32-bit counters at the front. */
export const Counter = { done: 0, posted: 1, taken: 2, stopped: 3 } as const;

const COUNTER_BYTES = 64;
/** u32 state, runs, window bytes, frame bytes, f64 address, u32 plain, u32 with look-up, u64 xxh3, f64 offset, u32 region, u32 with flags; then the runs. */
const SLOT_HEAD_BYTES = 56;
/** u32 offset, size, kind, skip or frame number, page. */
const RUN_BYTES = 20;
const RUN_KINDS = ["zero", "parent", "data", "duplicate"] as const;
/** After the runs: a byte for each page, whether it is known to be as in the parent. */
const FLAGS_START = SLOT_HEAD_BYTES + WINDOW_PAGES * RUN_BYTES;
const ROOM_START = FLAGS_START + WINDOW_PAGES;
const SLOT_BYTES = Math.ceil((ROOM_START + WINDOW_ROOM_BYTES) / 64) * 64;

/** A window: where it is in this process, and in its region. */
export interface WindowJob {
  readonly regionId: number;
  readonly offset: number;
  readonly address: number;
  readonly sizeBytes: number;
  /** Whether duplicates are looked up. */
  readonly isLookedUp: boolean;
  /** For each page. */
  readonly unchanged: Uint8Array | undefined;
}

export class CompressionSlots {
  readonly counters: Int32Array;
  readonly count: number;
  readonly #memory: SharedArrayBuffer;

  constructor(memory: SharedArrayBuffer) {
    this.#memory = memory;
    this.counters = new Int32Array(memory);
    this.count = (memory.byteLength - COUNTER_BYTES) / SLOT_BYTES;
  }

  static allocate(count: number): SharedArrayBuffer {
    return new SharedArrayBuffer(COUNTER_BYTES + count * SLOT_BYTES);
  }

  /** Index of a job's state among the counters. */
  stateIndex(job: number): number {
    return this.#start(job) / 4;
  }

  window(job: number): WindowJob {
    const view = this.#head(job);
    const sizeBytes = view.getUint32(8, true);
    return {
      sizeBytes,
      address: view.getFloat64(16, true),
      isLookedUp: view.getUint32(28, true) !== 0,
      offset: view.getFloat64(40, true),
      regionId: view.getUint32(48, true),
      unchanged: view.getUint32(52, true) === 0 ? undefined : this.#flags(job, sizeBytes),
    };
  }

  setWindow(job: number, { address, sizeBytes, isLookedUp, offset, regionId, unchanged }: WindowJob): void {
    const view = this.#head(job);
    view.setUint32(8, sizeBytes, true);
    view.setFloat64(16, address, true);
    view.setUint32(28, isLookedUp ? 1 : 0, true);
    view.setFloat64(40, offset, true);
    view.setUint32(48, regionId, true);
    view.setUint32(52, unchanged === undefined ? 0 : 1, true);
    if (unchanged !== undefined) this.#flags(job, sizeBytes).set(unchanged);
  }

  /** Where a job's frame is. */
  room(job: number): Uint8Array {
    return new Uint8Array(this.#memory, this.#start(job) + ROOM_START, WINDOW_ROOM_BYTES);
  }

  packed(job: number): PackedWindow {
    const view = this.#head(job);
    const runs = Array.from({ length: view.getUint32(4, true) }, (_, index): PackedRun => {
      const at = SLOT_HEAD_BYTES + index * RUN_BYTES;
      const [offset, sizeBytes, kind, first, page] = [0, 4, 8, 12, 16].map((part) =>
        view.getUint32(at + part, true),
      ) as [number, number, number, number, number];
      if (RUN_KINDS[kind] === "zero" || RUN_KINDS[kind] === "parent") {
        return { offset, sizeBytes, kind: RUN_KINDS[kind] };
      }
      if (RUN_KINDS[kind] === "data") return { offset, sizeBytes, kind: "data", skipBytes: first };
      return { offset, sizeBytes, kind: "duplicate", place: { frameNumber: first, page } };
    });
    const [frameBytes, plainBytes] = [view.getUint32(12, true), view.getUint32(24, true)];
    if (frameBytes === 0) return { runs, frame: undefined };
    return { runs, frame: { sizeBytes: frameBytes, plainBytes, checksum: view.getBigUint64(32, true) } };
  }

  setPacked(job: number, { runs, frame }: PackedWindow): void {
    const view = this.#head(job);
    view.setUint32(4, runs.length, true);
    view.setUint32(12, frame?.sizeBytes ?? 0, true);
    view.setUint32(24, frame?.plainBytes ?? 0, true);
    view.setBigUint64(32, frame?.checksum ?? 0n, true);
    for (const [index, run] of runs.entries()) {
      const at = SLOT_HEAD_BYTES + index * RUN_BYTES;
      const [first, page] =
        run.kind === "duplicate"
          ? [run.place.frameNumber, run.place.page]
          : [run.kind === "data" ? run.skipBytes : 0, 0];
      const words = [run.offset, run.sizeBytes, RUN_KINDS.indexOf(run.kind), first, page];
      for (const [word, value] of words.entries()) view.setUint32(at + 4 * word, value, true);
    }
  }

  #start(job: number): number {
    return COUNTER_BYTES + (job % this.count) * SLOT_BYTES;
  }

  #flags(job: number, sizeBytes: number): Uint8Array {
    return new Uint8Array(this.#memory, this.#start(job) + FLAGS_START, sizeBytes / MEMORY_PAGE_BYTES);
  }

  #head(job: number): DataView {
    return viewOf(new Uint8Array(this.#memory, this.#start(job), ROOM_START));
  }
}
