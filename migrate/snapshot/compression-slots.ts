/**
 * The memory that a writer shares with its compression Workers: counters, and slots of one window each. Jobs are numbered;
 * job N uses slot N modulo their count. A Worker takes the next number, waits until it is posted, works, and says done.
 */
import { MEMORY_PAGE_BYTES } from "./manifest.ts";
import { type PackedRun, type PackedWindow, WINDOW_PAGES, WINDOW_ROOM_BYTES } from "./pack-window.ts";
import { PAGE_HASH_BYTES } from "./stored-hashes.ts";

export const SlotState = { free: 0, posted: 1, done: 2, failed: 3 } as const;

/** Indices of the 32-bit counters at the front. */
export const Counter = { done: 0, posted: 1, taken: 2, stopped: 3, isAwaited: 4, sleeping: 5 } as const;

const COUNTER_BYTES = 64;
/** Where in a slot what is. */
const AT = {
  /** u32 */
  runCount: 4,
  windowBytes: 8,
  frameBytes: 12,
  /** f64 */
  address: 16,
  /** u32 */
  plainBytes: 24,
  isLookedUp: 28,
  /** u64 */
  checksum: 32,
  /** f64 */
  offset: 40,
  /** u32 */
  regionId: 48,
  hasFlags: 52,
  frameNumber: 56,
} as const;
/** The state is the first word; the runs come after. */
const SLOT_HEAD_BYTES = 64;
/** u32 offset, size, kind, skip or frame number, page. */
const RUN_BYTES = 20;
const RUN_KINDS = ["zero", "parent", "data", "duplicate"] as const;
/** After the runs: a byte for each page, whether it is known to be as in the parent. */
const FLAGS_START = SLOT_HEAD_BYTES + WINDOW_PAGES * RUN_BYTES;
/** Then the hashes of the pages. */
const HASHES_START = Math.ceil((FLAGS_START + WINDOW_PAGES) / 8) * 8;
const ROOM_START = HASHES_START + WINDOW_PAGES * PAGE_HASH_BYTES;
const SLOT_BYTES = Math.ceil((ROOM_START + WINDOW_ROOM_BYTES) / 64) * 64;

/** A window: where it is in this process, and in its region. */
export interface WindowJob {
  readonly regionId: number;
  readonly offset: number;
  readonly address: number;
  readonly sizeBytes: number;
  /** Whether duplicates are looked up. */
  readonly isLookedUp: boolean;
  readonly frameNumber: number;
  /** For each page. */
  readonly unchanged: Uint8Array | undefined;
}

export class CompressionSlots {
  readonly counters: Int32Array;
  readonly count: number;
  readonly #memory: SharedArrayBuffer;
  readonly #view: DataView;
  /** One for each slot. */
  readonly #rooms: readonly Uint8Array[];

  constructor(memory: SharedArrayBuffer) {
    this.#memory = memory;
    this.#view = new DataView(memory);
    this.counters = new Int32Array(memory);
    this.count = (memory.byteLength - COUNTER_BYTES) / SLOT_BYTES;
    this.#rooms = Array.from(
      { length: this.count },
      (_, slot) => new Uint8Array(memory, this.#start(slot) + ROOM_START, WINDOW_ROOM_BYTES),
    );
  }

  static allocate(count: number): SharedArrayBuffer {
    return new SharedArrayBuffer(COUNTER_BYTES + count * SLOT_BYTES);
  }

  /** The writer looks when no more than this is left to do. */
  get halfCount(): number {
    return this.count / 2;
  }

  /** Index of a job's state among the counters. */
  stateIndex(job: number): number {
    return this.#start(job) / 4;
  }

  window(job: number): WindowJob {
    const [view, at] = [this.#view, this.#start(job)];
    const sizeBytes = view.getUint32(at + AT.windowBytes, true);
    const hasFlags = view.getUint32(at + AT.hasFlags, true) !== 0;
    return {
      sizeBytes,
      address: view.getFloat64(at + AT.address, true),
      isLookedUp: view.getUint32(at + AT.isLookedUp, true) !== 0,
      offset: view.getFloat64(at + AT.offset, true),
      regionId: view.getUint32(at + AT.regionId, true),
      frameNumber: view.getUint32(at + AT.frameNumber, true),
      unchanged: hasFlags ? this.#flags(job, sizeBytes) : undefined,
    };
  }

  setWindow(job: number, window: WindowJob): void {
    const [view, at] = [this.#view, this.#start(job)];
    view.setUint32(at + AT.windowBytes, window.sizeBytes, true);
    view.setFloat64(at + AT.address, window.address, true);
    view.setUint32(at + AT.isLookedUp, window.isLookedUp ? 1 : 0, true);
    view.setFloat64(at + AT.offset, window.offset, true);
    view.setUint32(at + AT.regionId, window.regionId, true);
    view.setUint32(at + AT.frameNumber, window.frameNumber, true);
    view.setUint32(at + AT.hasFlags, window.unchanged === undefined ? 0 : 1, true);
    if (window.unchanged !== undefined) this.#flags(job, window.sizeBytes).set(window.unchanged);
  }

  /** Where a job's frame is. */
  room(job: number): Uint8Array {
    return this.#rooms[job % this.count] as Uint8Array;
  }

  /** Of a job's pages, two words for each. */
  pageHashes(job: number): BigUint64Array {
    return new BigUint64Array(this.#memory, this.#start(job) + HASHES_START, 2 * WINDOW_PAGES);
  }

  packed(job: number): PackedWindow {
    const [view, at] = [this.#view, this.#start(job)];
    const count = view.getUint32(at + AT.runCount, true);
    const runs = Array.from({ length: count }, (_, index) =>
      this.#run(at + SLOT_HEAD_BYTES + index * RUN_BYTES),
    );
    const sizeBytes = view.getUint32(at + AT.frameBytes, true);
    if (sizeBytes === 0) return { runs, frame: undefined };
    const plainBytes = view.getUint32(at + AT.plainBytes, true);
    return { runs, frame: { sizeBytes, plainBytes, checksum: view.getBigUint64(at + AT.checksum, true) } };
  }

  setPacked(job: number, { runs, frame }: PackedWindow): void {
    const [view, at] = [this.#view, this.#start(job)];
    view.setUint32(at + AT.runCount, runs.length, true);
    view.setUint32(at + AT.frameBytes, frame?.sizeBytes ?? 0, true);
    view.setUint32(at + AT.plainBytes, frame?.plainBytes ?? 0, true);
    view.setBigUint64(at + AT.checksum, frame?.checksum ?? 0n, true);
    for (const [index, run] of runs.entries()) this.#setRun(at + SLOT_HEAD_BYTES + index * RUN_BYTES, run);
  }

  #run(at: number): PackedRun {
    const view = this.#view;
    const [offset, sizeBytes] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    const kind = RUN_KINDS[view.getUint32(at + 8, true)];
    const first = view.getUint32(at + 12, true);
    if (kind === "data") return { offset, sizeBytes, kind, skipBytes: first };
    if (kind !== "duplicate") return { offset, sizeBytes, kind: kind ?? "zero" };
    return { offset, sizeBytes, kind, place: { frameNumber: first, page: view.getUint32(at + 16, true) } };
  }

  #setRun(at: number, run: PackedRun): void {
    const view = this.#view;
    view.setUint32(at, run.offset, true);
    view.setUint32(at + 4, run.sizeBytes, true);
    view.setUint32(at + 8, RUN_KINDS.indexOf(run.kind), true);
    if (run.kind === "data") view.setUint32(at + 12, run.skipBytes, true);
    if (run.kind !== "duplicate") return;
    view.setUint32(at + 12, run.place.frameNumber, true);
    view.setUint32(at + 16, run.place.page, true);
  }

  #start(job: number): number {
    return COUNTER_BYTES + (job % this.count) * SLOT_BYTES;
  }

  #flags(job: number, sizeBytes: number): Uint8Array {
    return new Uint8Array(this.#memory, this.#start(job) + FLAGS_START, sizeBytes / MEMORY_PAGE_BYTES);
  }
}
