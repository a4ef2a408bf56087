import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { frameBoundBytes } from "./compression.ts";
import type { Extent, Frame } from "./extent.ts";
import { SEAL_TAG_BYTES } from "./file-cipher.ts";
import { readFully } from "./file-io.ts";
import { FrameBatch, type Mutable } from "./frame-batch.ts";
import { framePlace, recordIdAt } from "./frame-place.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";
import type { PackedWindow, PlainWindow } from "./pack-window.ts";
import type { RecordOutput } from "./record-output.ts";

/** A window of a pass. */
export interface PlacedWindow extends PlainWindow {
  readonly passNumber: number;
}

/** Gives packed windows their places in the file: extents, and frames of which equal ones are stored once. */
export class ExtentWriter {
  readonly extents: Mutable<Extent>[] = [];
  /** Of all frames in the file. */
  compressedBytes = 0;
  readonly #output: RecordOutput;
  /** Whether frames can be read back, which finding equal ones needs. */
  readonly #isReadable: boolean;
  readonly #frames = new Map<bigint, Mutable<Frame>>();
  readonly #batch: FrameBatch;
  /** By their numbers, where duplicates are looked up. */
  readonly #frameList: Frame[] = [];
  #scratch: Uint8Array | undefined;

  constructor(output: RecordOutput, isReadable: boolean, maxBatchExtents?: number) {
    this.#output = output;
    this.#isReadable = isReadable;
    this.#batch = new FrameBatch(output, maxBatchExtents);
  }

  /** @param room Has the window's frame, if there is one, until this returns. */
  place(where: PlacedWindow, { runs, frame: packed }: PackedWindow, room: Uint8Array): void {
    // Bare extents since the last window may have left too little room for all of this one.
    this.#batch.flushIfFull();
    const bytes = room.subarray(0, packed?.sizeBytes ?? 0);
    const known = packed === undefined ? undefined : this.#frames.get(packed.checksum);
    const isKnown =
      known !== undefined && known.plainBytes === packed?.plainBytes && this.#isSame(known, bytes);
    const own =
      packed === undefined || isKnown ? known : this.#newFrame(bytes, packed.plainBytes, packed.checksum);
    const { regionId, passNumber } = where;
    for (const run of runs) {
      const offset = where.offset + run.offset;
      const extent = { regionId, passNumber, offset, sizeBytes: run.sizeBytes };
      if (run.kind === "zero" || run.kind === "parent") this.bare(run.kind, extent);
      else if (run.kind === "data" && own !== undefined) {
        this.#add({ ...extent, kind: isKnown ? "duplicate" : "data", frame: own, skipBytes: run.skipBytes });
      } else if (run.kind === "duplicate") {
        const { frameNumber, page } = run.place;
        const frame = this.#frameList[frameNumber] as Frame;
        this.#add({ ...extent, kind: "duplicate", frame, skipBytes: page * MEMORY_PAGE_BYTES });
      }
    }
    if (own !== undefined && where.address !== 0) this.#frameList[where.frameNumber] = own;
    this.#batch.flushIfFull();
  }

  /** An extent without a frame; those that follow each other become one. */
  bare(
    kind: "zero" | "parent",
    where: Pick<Extent, "regionId" | "passNumber" | "offset" | "sizeBytes">,
  ): void {
    const last = this.#batch.last;
    const isNext =
      last?.kind === kind &&
      last.regionId === where.regionId &&
      last.offset + last.sizeBytes === where.offset;
    if (last !== undefined && isNext && last.passNumber === where.passNumber)
      last.sizeBytes += where.sizeBytes;
    else this.#add({ ...where, kind, skipBytes: 0 });
  }

  /** Writes what is left. */
  flush(): void {
    this.#batch.flush();
  }

  #newFrame(bytes: Uint8Array, plainBytes: number, checksum: bigint): Frame {
    const frame = this.#batch.addFrame(bytes, plainBytes, checksum);
    this.compressedBytes += bytes.length;
    if (this.#isReadable && !this.#frames.has(checksum)) this.#frames.set(checksum, frame);
    return frame;
  }

  /**
   * xxh3 only finds candidates: what is the same is found by comparing all bytes. It is enough to compare the frames:
   * from equal frames come equal bytes, and one compressor makes the same frame of the same bytes.
   */
  #isSame(known: Frame, bytes: Uint8Array): boolean {
    const open = this.#batch.openFrame(known);
    if (open !== undefined) return Buffer.compare(open, bytes) === 0;
    const { cipher } = this.#output;
    if (known.sizeBytes !== bytes.length + (cipher === undefined ? 0 : SEAL_TAG_BYTES)) return false;
    this.#scratch ??= new Uint8Array(frameBoundBytes(MAX_SNAPSHOT_FRAME_BYTES) + SEAL_TAG_BYTES);
    const stored = this.#scratch.subarray(0, known.sizeBytes);
    readFully(this.#output.fd, stored, known.offset, this.#output.what, "extent");
    if (cipher === undefined) return Buffer.compare(stored, bytes) === 0;
    const place = framePlace(known, recordIdAt(this.#output.entries, known.offset));
    return Buffer.compare(cipher.open(stored, place, "extent"), bytes) === 0;
  }

  #add(extent: Mutable<Extent>): void {
    this.extents.push(extent);
    this.#batch.add(extent);
  }
}
