/** What load Workers share: counters, and the extents that are to be read, which each takes a few of at a time. */
import { viewOf } from "./bytes.ts";
import type { FramePart } from "./frame-reader.ts";

/** Indices of the 32-bit counters at the front: the next extent to take, pages done, whether to stop. */
export const LoadCounter = { next: 0, pagesDone: 1, stopped: 2 } as const;

const COUNTER_BYTES = 64;
/** u32 file, u32 region, f64 frame offset, u64 xxh3, u32 frame size, u32 plain, u32 skip, u32 size, f64 offset, u64 record, u32 seal number. */
const ENTRY_BYTES = 64;

/** A part of a frame in one of the open files, and where in the region it goes. */
export interface LoadEntry extends FramePart {
  readonly fileNumber: number;
}

export class LoadTable {
  readonly memory: SharedArrayBuffer;
  readonly counters: Int32Array;
  readonly count: number;
  readonly #view: DataView;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.counters = new Int32Array(memory, 0, COUNTER_BYTES / 4);
    this.count = (memory.byteLength - COUNTER_BYTES) / ENTRY_BYTES;
    this.#view = viewOf(new Uint8Array(memory));
  }

  static of(entries: readonly LoadEntry[]): LoadTable {
    const table = new LoadTable(new SharedArrayBuffer(COUNTER_BYTES + entries.length * ENTRY_BYTES));
    for (const [index, entry] of entries.entries()) table.#set(index, entry);
    return table;
  }

  get(index: number): LoadEntry {
    const [view, at] = [this.#view, COUNTER_BYTES + index * ENTRY_BYTES];
    return {
      fileNumber: view.getUint32(at, true),
      regionId: view.getUint32(at + 4, true),
      frame: {
        offset: view.getFloat64(at + 8, true),
        checksum: view.getBigUint64(at + 16, true),
        sizeBytes: view.getUint32(at + 24, true),
        plainBytes: view.getUint32(at + 28, true),
        sealNumber: view.getUint32(at + 56, true),
      },
      skipBytes: view.getUint32(at + 32, true),
      sizeBytes: view.getUint32(at + 36, true),
      offset: view.getFloat64(at + 40, true),
      recordId: view.getBigUint64(at + 48, true),
    };
  }

  #set(index: number, entry: LoadEntry): void {
    const { fileNumber, regionId, frame, skipBytes, sizeBytes, offset } = entry;
    const [view, at] = [this.#view, COUNTER_BYTES + index * ENTRY_BYTES];
    view.setUint32(at, fileNumber, true);
    view.setUint32(at + 4, regionId, true);
    view.setFloat64(at + 8, frame.offset, true);
    view.setBigUint64(at + 16, frame.checksum, true);
    view.setUint32(at + 24, frame.sizeBytes, true);
    view.setUint32(at + 28, frame.plainBytes, true);
    view.setUint32(at + 32, skipBytes, true);
    view.setUint32(at + 36, sizeBytes, true);
    view.setFloat64(at + 40, offset, true);
    view.setBigUint64(at + 48, entry.recordId ?? 0n, true);
    view.setUint32(at + 56, frame.sealNumber ?? 0, true);
  }
}
