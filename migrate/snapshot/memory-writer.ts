import { UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { addressOf } from "../../src/sys/mod.ts";
import { createZstd, DEFAULT_LEVEL, frameBoundBytes } from "./compression.ts";
import { CompressionPool, type Window } from "./compression-pool.ts";
import type { ParentSetup } from "./compression-worker.ts";
import type { Extent, Frame } from "./extent.ts";
import { SEAL_TAG_BYTES } from "./file-cipher.ts";
import { readFully } from "./file-io.ts";
import { FrameBatch, type Mutable } from "./frame-batch.ts";
import { framePlace, recordIdAt } from "./frame-place.ts";
import type { MemoryStats } from "./index-table.ts";
import { livingExtents } from "./living-extents.ts";
import { LoadTable } from "./load-table.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "./manifest.ts";
import {
  type PackedRun,
  type PackedWindow,
  type RegionPlace,
  WINDOW_ROOM_BYTES,
  WindowPacker,
} from "./pack-window.ts";
import { PageTable } from "./page-table.ts";
import { ParentPages } from "./parent-pages.ts";
import type { RecordOutput } from "./record-output.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";

/** From here on Workers are worth their start (20 ms). */
const LEAST_POOL_BYTES = 8 * 1024 * 1024;

/** A window in its region; `address` is 0 where duplicates are not looked up. */
interface Place {
  readonly regionId: number;
  readonly offset: number;
  readonly plain: Uint8Array;
  readonly address: number;
}

/** Turns memory into extents of zeros, duplicates and zstd frames, and writes them in batches. */
export class MemoryWriter implements Disposable {
  readonly #output: RecordOutput;
  /** Whether frames can be read back, which finding duplicates needs. */
  readonly #isReadable: boolean;
  readonly #frames = new Map<bigint, Mutable<Frame>>();
  readonly #extents: Mutable<Extent>[] = [];
  readonly #batch: FrameBatch;
  /** By their numbers in the table of pages. */
  readonly #frameList: Frame[] = [];
  #pages: PageTable | undefined;
  #isLookingUp = false;
  #packer: WindowPacker | undefined;
  #pool: CompressionPool | undefined;
  readonly #base: SnapshotReader | undefined;
  #baseTable: LoadTable | undefined;
  #regions = new Map<number, SnapshotRegion>();
  #passNumber = 0;
  #room: Uint8Array | undefined;
  #scratch: Uint8Array | undefined;
  #compressedBytes = 0;

  /** @param base What unchanged pages are left to. */
  constructor(output: RecordOutput, isReadable: boolean, base?: SnapshotReader) {
    this.#base = base;
    this.#output = output;
    this.#isReadable = isReadable;
    this.#batch = new FrameBatch(output);
  }

  setRegions(regions: readonly SnapshotRegion[]): void {
    this.#regions = new Map(regions.map((region) => [region.id, region]));
  }

  nextPass(): number {
    this.#passNumber += 1;
    return this.#passNumber;
  }

  /** Until the result is disposed, what is written stays mapped and unchanged, so that pages are looked up in it. */
  lookUpPages(sizeBytes: number): Disposable {
    this.#pages ??= PageTable.allocate(sizeBytes);
    this.#isLookingUp = true;
    return {
      [Symbol.dispose]: () => {
        this.#isLookingUp = false;
        this.#pages?.clear();
      },
    };
  }

  write(regionId: number, offset: number, bytes: Uint8Array): void {
    this.#check(regionId, offset, bytes.length);
    if (bytes.length === 0) return;
    const address = this.#isLookingUp ? addressOf(bytes) : 0;
    const place = (window: Window, packed: PackedWindow, room: Uint8Array) => {
      const plain = bytes.subarray(window.offset, window.offset + window.sizeBytes);
      const where = {
        regionId,
        offset: offset + window.offset,
        plain,
        address: address && address + window.offset,
      };
      this.#place(where, packed, room);
    };
    const windows = windowsOf(offset, bytes.length);
    if (bytes.length >= LEAST_POOL_BYTES && CompressionPool.workerCount() > 1) {
      this.#pages ??= PageTable.allocate(0);
      this.#pool ??= new CompressionPool(DEFAULT_LEVEL, this.#pages, this.#parentSetup());
      this.#pool.compress(bytes, windows, { regionId, offset }, address !== 0, (window, packed, room) => {
        if (packed !== undefined) place(window, packed, room);
        else this.#pack(bytes, window, { regionId, offset, address }, place);
      });
    } else for (const window of windows) this.#pack(bytes, window, { regionId, offset, address }, place);
  }

  hole(regionId: number, offset: number, sizeBytes: number): void {
    this.#check(regionId, offset, sizeBytes);
    if (sizeBytes > 0) this.#bare("zero", regionId, offset, sizeBytes);
  }

  /** As in the parent, by somebody who knows. */
  unchanged(regionId: number, offset: number, sizeBytes: number): void {
    if (this.#base === undefined) throw new UsageError("only a snapshot with a base can leave memory to it");
    this.#check(regionId, offset, sizeBytes);
    if (sizeBytes > 0) this.#bare("parent", regionId, offset, sizeBytes);
  }

  /** Writes what is left and says what lives. @throws UsageError unless every region is covered, once per pass. */
  finish(): { extents: Extent[]; stats: MemoryStats } {
    this.#batch.flush();
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

  /** One window on this thread. */
  #pack(
    bytes: Uint8Array,
    window: Window,
    { regionId, offset, address }: RegionPlace & { readonly address: number },
    place: (window: Window, packed: PackedWindow, room: Uint8Array) => void,
  ): void {
    this.#room ??= new Uint8Array(WINDOW_ROOM_BYTES);
    this.#packer ??= new WindowPacker(createZstd(), this.#pages, this.#parentPages());
    const plain = bytes.subarray(window.offset, window.offset + window.sizeBytes);
    const where = { regionId, offset: offset + window.offset };
    const packed = this.#packer.pack(plain, where, address && address + window.offset, this.#room);
    place(window, packed, this.#room);
  }

  #parentSetup(): ParentSetup | undefined {
    if (this.#base === undefined) return undefined;
    this.#baseTable ??= tableOf(this.#base);
    return { table: this.#baseTable.memory, files: this.#base.inputs.map((input) => input.share()) };
  }

  #parentPages(): ParentPages | undefined {
    if (this.#base === undefined) return undefined;
    this.#baseTable ??= tableOf(this.#base);
    return new ParentPages(this.#baseTable, this.#base.inputs);
  }

  #place(where: Place, { runs, frame: packed }: PackedWindow, room: Uint8Array): void {
    const bytes = room.subarray(0, packed?.sizeBytes ?? 0);
    const known = packed === undefined ? undefined : this.#frames.get(packed.checksum);
    const isKnown =
      known !== undefined && known.plainBytes === packed?.plainBytes && this.#isSame(known, bytes);
    const own =
      packed === undefined || isKnown ? known : this.#newFrame(bytes, packed.plainBytes, packed.checksum);
    for (const run of runs) {
      const offset = where.offset + run.offset;
      const extent = {
        regionId: where.regionId,
        passNumber: this.#passNumber,
        offset,
        sizeBytes: run.sizeBytes,
      };
      if (run.kind === "zero" || run.kind === "parent")
        this.#bare(run.kind, where.regionId, offset, run.sizeBytes);
      else if (run.kind === "data" && own !== undefined) {
        this.#add({ ...extent, kind: isKnown ? "duplicate" : "data", frame: own, skipBytes: run.skipBytes });
      } else if (run.kind === "duplicate") {
        const { frameNumber, page } = run.place;
        const frame = this.#frameList[frameNumber] as Frame;
        this.#add({ ...extent, kind: "duplicate", frame, skipBytes: page * MEMORY_PAGE_BYTES });
      }
    }
    if (own !== undefined && !isKnown && where.address !== 0) this.#addPages(where, runs, own);
    this.#batch.flushIfFull();
  }

  #addPages({ plain, address }: Place, runs: readonly PackedRun[], frame: Frame): void {
    const frameNumber = this.#frameList.push(frame) - 1;
    for (const run of runs) {
      if (run.kind !== "data") continue;
      for (let at = 0; at < run.sizeBytes; at += MEMORY_PAGE_BYTES) {
        const start = run.offset + at;
        const page = (run.skipBytes + at) / MEMORY_PAGE_BYTES;
        this.#pages?.add(plain.subarray(start, start + MEMORY_PAGE_BYTES), address + start, {
          frameNumber,
          page,
        });
      }
    }
  }

  /** An extent without a frame; those that follow each other become one. */
  #bare(kind: "zero" | "parent", regionId: number, offset: number, sizeBytes: number): void {
    const last = this.#batch.last;
    const isNext =
      last?.kind === kind && last.regionId === regionId && last.offset + last.sizeBytes === offset;
    if (last !== undefined && isNext && last.passNumber === this.#passNumber) {
      last.sizeBytes += sizeBytes;
      return;
    }
    this.#add({ regionId, passNumber: this.#passNumber, offset, sizeBytes, kind, skipBytes: 0 });
  }

  #newFrame(bytes: Uint8Array, plainBytes: number, checksum: bigint): Frame {
    const frame = this.#batch.addFrame(bytes, plainBytes, checksum);
    this.#compressedBytes += bytes.length;
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
    this.#extents.push(extent);
    this.#batch.add(extent);
  }

  [Symbol.dispose](): void {
    this.#pool?.[Symbol.dispose]();
    this.#pool = undefined;
  }
}

/** All data of the base's chain, as `ParentPages` needs it. */
function tableOf(base: SnapshotReader): LoadTable {
  const regionIds = base.memoryMap.map(({ id }) => id).sort((a, b) => a - b);
  const extents = regionIds.flatMap((id) => base.resolvedExtents(id));
  return LoadTable.of(
    extents.flatMap((extent) => (extent.frame ? [{ ...extent, frame: extent.frame }] : [])),
  );
}

/** Windows end at multiples of 1 MiB of the region, so that equal memory in other places makes equal frames. */
function windowsOf(offset: number, sizeBytes: number): Window[] {
  const windows: Window[] = [];
  for (let at = 0; at < sizeBytes; ) {
    const untilBoundary = MAX_SNAPSHOT_FRAME_BYTES - ((offset + at) % MAX_SNAPSHOT_FRAME_BYTES);
    const window = { offset: at, sizeBytes: Math.min(untilBoundary, sizeBytes - at) };
    windows.push(window);
    at += window.sizeBytes;
  }
  return windows;
}
