import assert from "node:assert/strict";
import { UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_BATCH_EXTENTS, MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { viewOf } from "./bytes.ts";
import { createZstd, frameBoundBytes } from "./compression.ts";
import { EXTENT_ENTRY_BYTES, type Extent, encodeExtent, type Frame } from "./extent.ts";
import { readFully } from "./file-io.ts";
import type { MemoryStats } from "./index-table.ts";
import { livingExtents } from "./living-extents.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "./manifest.ts";
import { RECORD_CHECKSUM_BYTES, RECORD_HEAD_BYTES, RecordFlag, RecordType } from "./record.ts";
import type { RecordOutput } from "./record-output.ts";
import { zeroRuns } from "./zero-runs.ts";

/** u32 extents, u32 zero: before the table of a batch. */
export const BATCH_HEAD_BYTES = 8;
/** Frames in memory before a record is written: the writer's own memory is about this. */
const BATCH_FRAME_BYTES = 16 * 1024 * 1024;
/** Where frames start in the buffer, so that head and table always fit in front of them. */
const FRAMES_START = RECORD_HEAD_BYTES + BATCH_HEAD_BYTES + MAX_SNAPSHOT_BATCH_EXTENTS * EXTENT_ENTRY_BYTES;

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

/** Turns memory into extents of zeros, duplicates and zstd frames, and writes them in batches. */
export class MemoryWriter {
  readonly #output: RecordOutput;
  /** Whether frames can be read back, which finding duplicates needs. */
  readonly #isReadable: boolean;
  readonly #zstd = createZstd();
  readonly #frames = new Map<bigint, Mutable<Frame>>();
  readonly #extents: Mutable<Extent>[] = [];
  #regions = new Map<number, SnapshotRegion>();
  #passNumber = 0;
  #batchCount = 0;
  #batchStart = 0;
  #buffer: Uint8Array | undefined;
  #scratch: { frame: Uint8Array; plain: Uint8Array } | undefined;
  /** Where the next frame goes in the buffer. Frames of the open batch carry offsets in the buffer, made negative. */
  #fill = FRAMES_START;
  #compressedBytes = 0;

  constructor(output: RecordOutput, isReadable: boolean) {
    this.#output = output;
    this.#isReadable = isReadable;
  }

  setRegions(regions: readonly SnapshotRegion[]): void {
    this.#regions = new Map(regions.map((region) => [region.id, region]));
  }

  nextPass(): number {
    this.#passNumber += 1;
    return this.#passNumber;
  }

  write(regionId: number, offset: number, bytes: Uint8Array): void {
    this.#check(regionId, offset, bytes.length);
    for (let at = 0; at < bytes.length; ) {
      const untilBoundary = MAX_SNAPSHOT_FRAME_BYTES - ((offset + at) % MAX_SNAPSHOT_FRAME_BYTES);
      const window = bytes.subarray(at, at + untilBoundary);
      for (const run of zeroRuns(window)) {
        const where = offset + at + run.offset;
        if (run.isZero) this.#zeros(regionId, where, run.sizeBytes);
        else this.#content(regionId, where, window.subarray(run.offset, run.offset + run.sizeBytes));
      }
      at += window.length;
    }
  }

  hole(regionId: number, offset: number, sizeBytes: number): void {
    this.#check(regionId, offset, sizeBytes);
    if (sizeBytes > 0) this.#zeros(regionId, offset, sizeBytes);
  }

  /** Writes what is left and says what lives. @throws UsageError unless every region is covered, once per pass. */
  finish(): { extents: Extent[]; stats: MemoryStats } {
    this.#flush();
    const extents = livingExtents(this.#extents, (earlier, later) => {
      throw new UsageError(
        `region ${later.regionId} was written twice in pass ${later.passNumber}, at ${earlier.offset} and ${later.offset}`,
      );
    });
    this.#checkCoverage(extents);
    const sum = (kind: Extent["kind"]) =>
      extents.reduce((total, extent) => total + (extent.kind === kind ? extent.sizeBytes : 0), 0);
    const stats = {
      zeroBytes: sum("zero"),
      duplicateBytes: sum("duplicate"),
      dataBytes: sum("data"),
      compressedBytes: this.#compressedBytes,
    };
    return { extents, stats };
  }

  #check(regionId: number, offset: number, sizeBytes: number): void {
    const region = this.#regions.get(regionId);
    if (region === undefined) throw new UsageError(`memory region ${regionId} is not in the memory map`);
    const isWhole = offset % MEMORY_PAGE_BYTES === 0 && sizeBytes % MEMORY_PAGE_BYTES === 0;
    if (!isWhole || offset < 0 || offset + sizeBytes > region.sizeBytes) {
      throw new UsageError(
        `${sizeBytes} bytes at ${offset} are not whole pages of region ${regionId} (${region.sizeBytes} bytes)`,
      );
    }
  }

  #checkCoverage(extents: readonly Extent[]): void {
    const covered = new Map<number, number>();
    for (const { regionId, sizeBytes } of extents)
      covered.set(regionId, (covered.get(regionId) ?? 0) + sizeBytes);
    for (const region of this.#regions.values()) {
      const bytes = covered.get(region.id) ?? 0;
      if (bytes !== region.sizeBytes) {
        throw new UsageError(
          `${region.sizeBytes - bytes} bytes of memory region ${region.id} were never written`,
        );
      }
    }
  }

  #zeros(regionId: number, offset: number, sizeBytes: number): void {
    const last = this.#batchCount === 0 ? undefined : this.#extents.at(-1);
    const isNext =
      last?.kind === "zero" && last.regionId === regionId && last.offset + last.sizeBytes === offset;
    if (last !== undefined && isNext && last.passNumber === this.#passNumber) {
      last.sizeBytes += sizeBytes;
      return;
    }
    this.#add({ regionId, passNumber: this.#passNumber, offset, sizeBytes, kind: "zero", skipBytes: 0 });
  }

  #content(regionId: number, offset: number, bytes: Uint8Array): void {
    const checksum = xxh3(bytes);
    const known = this.#frames.get(checksum);
    const isDuplicate = known !== undefined && this.#isSame(known, bytes);
    const frame = isDuplicate ? known : this.#compress(bytes, checksum);
    const kind = isDuplicate ? "duplicate" : "data";
    this.#add({
      regionId,
      passNumber: this.#passNumber,
      offset,
      sizeBytes: bytes.length,
      kind,
      frame,
      skipBytes: 0,
    });
  }

  #compress(bytes: Uint8Array, checksum: bigint): Mutable<Frame> {
    this.#buffer ??= new Uint8Array(
      FRAMES_START + BATCH_FRAME_BYTES + frameBoundBytes(MAX_SNAPSHOT_FRAME_BYTES) + RECORD_CHECKSUM_BYTES,
    );
    const room = this.#buffer.subarray(this.#fill, this.#fill + frameBoundBytes(bytes.length));
    const sizeBytes = this.#zstd.compress(room, bytes);
    const frame = { offset: -this.#fill, sizeBytes, plainBytes: bytes.length, checksum };
    this.#fill += sizeBytes;
    this.#compressedBytes += sizeBytes;
    if (this.#isReadable && !this.#frames.has(checksum)) this.#frames.set(checksum, frame);
    return frame;
  }

  /** xxh3 only finds candidates: two pages are the same when their bytes are. */
  #isSame(known: Frame, bytes: Uint8Array): boolean {
    if (known.plainBytes !== bytes.length) return false;
    this.#scratch ??= {
      frame: new Uint8Array(frameBoundBytes(MAX_SNAPSHOT_FRAME_BYTES)),
      plain: new Uint8Array(MAX_SNAPSHOT_FRAME_BYTES),
    };
    let frame = this.#scratch.frame.subarray(0, known.sizeBytes);
    if (known.offset < 0) frame = this.#openFrame(known);
    else readFully(this.#output.fd, frame, known.offset, this.#output.what, "extent");
    const plain = this.#scratch.plain.subarray(0, known.plainBytes);
    this.#zstd.decompress(plain, frame);
    return Buffer.compare(plain, bytes) === 0;
  }

  #openFrame(frame: Frame): Uint8Array {
    assert(this.#buffer !== undefined);
    return this.#buffer.subarray(-frame.offset, -frame.offset + frame.sizeBytes);
  }

  #add(extent: Mutable<Extent>): void {
    this.#extents.push(extent);
    this.#batchCount += 1;
    const isFull = this.#fill - FRAMES_START >= BATCH_FRAME_BYTES;
    if (isFull || this.#batchCount === MAX_SNAPSHOT_BATCH_EXTENTS) this.#flush();
  }

  /** One record: the table goes right in front of the frames, so that the whole is one piece of the buffer. */
  #flush(): void {
    if (this.#batchCount === 0) return;
    this.#buffer ??= new Uint8Array(FRAMES_START + RECORD_CHECKSUM_BYTES);
    const batch = this.#extents.slice(this.#batchStart);
    const tableStart = FRAMES_START - batch.length * EXTENT_ENTRY_BYTES;
    const recordStart = tableStart - BATCH_HEAD_BYTES - RECORD_HEAD_BYTES;
    const view = viewOf(this.#buffer);
    view.setUint32(tableStart - BATCH_HEAD_BYTES, batch.length, true);
    view.setUint32(tableStart - BATCH_HEAD_BYTES + 4, 0, true);
    this.#buffer.fill(0, tableStart, FRAMES_START);
    const toFile = this.#output.position - recordStart;
    for (const [index, extent] of batch.entries()) {
      const frame = extent.frame as Mutable<Frame> | undefined;
      if (frame !== undefined && frame.offset < 0) frame.offset = -frame.offset + toFile;
      encodeExtent(view, tableStart + index * EXTENT_ENTRY_BYTES, extent);
    }
    const room = this.#buffer.subarray(recordStart, this.#fill + RECORD_CHECKSUM_BYTES);
    const id = BigInt(this.#output.entries.length);
    this.#output.recordInPlace(RecordType.extents, RecordFlag.critical, id, room);
    if (this.#buffer.length <= FRAMES_START + RECORD_CHECKSUM_BYTES) this.#buffer = undefined;
    this.#batchStart = this.#extents.length;
    this.#batchCount = 0;
    this.#fill = FRAMES_START;
  }
}
