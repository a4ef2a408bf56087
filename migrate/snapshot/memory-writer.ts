import { UsageError } from "../../src/errors.ts";
import { addressOf } from "../../src/sys/mod.ts";
import { createZstd, DEFAULT_LEVEL } from "./compression.ts";
import { CompressionPool } from "./compression-pool.ts";
import type { HashSetup, ParentSetup } from "./compression-worker.ts";
import type { Extent } from "./extent.ts";
import { ExtentWriter, type PlacedWindow } from "./extent-writer.ts";
import { HashKeeper } from "./hash-keeper.ts";
import type { MemoryStats } from "./index-table.ts";
import { livingExtents } from "./living-extents.ts";
import { LoadTable } from "./load-table.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "./manifest.ts";
import { type PackedWindow, WINDOW_ROOM_BYTES, WindowPacker } from "./pack-window.ts";
import { PageHashes } from "./page-hashes.ts";
import { PageTable } from "./page-table.ts";
import { ParentPages } from "./parent-pages.ts";
import { PendingWrite } from "./pending-write.ts";
import type { RecordOutput } from "./record-output.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";
import { windowsOf } from "./windows-of.ts";
import { zeroRuns } from "./zero-runs.ts";

/** From here on Workers are worth their start (20 ms). */
const LEAST_POOL_BYTES = 8 * 1024 * 1024;
/** Where fewer pages have changed, or a smaller share of them, to hand them over would cost more than to compress them. */
const LEAST_CHANGED = { bytes: 64 * 1024, share: 1 / 16 };

/** Memory of this process. */
export interface MemoryRange {
  readonly address: number;
  readonly sizeBytes: number;
}

export interface MemoryWriterOptions {
  /** What unchanged pages are left to. */
  readonly base?: SnapshotReader | undefined;
  /** Of zstd. */
  readonly level?: number | undefined;
  /** False: an extent has a frame of its own, or all of an earlier one, as in version 0. */
  readonly hasSharedFrames?: boolean | undefined;
  /** Of a record. */
  readonly maxBatchExtents?: number | undefined;
  /** Whether pages are hashed, for a snapshot that is based on this one; with a base that has hashes they are. */
  readonly keepsHashes?: boolean | undefined;
}

/** Turns memory into extents of zeros, duplicates and zstd frames, and writes them in batches. */
export class MemoryWriter implements Disposable {
  readonly #extents: ExtentWriter;
  #pages: PageTable | undefined;
  /** What `lookUpPages` was given, while it holds. */
  #lookedUp: MemoryRange | undefined;
  #packer: WindowPacker | undefined;
  /** By whether they compare with the base. */
  readonly #pools = new Map<boolean, CompressionPool>();
  readonly #base: SnapshotReader | undefined;
  readonly #level: number;
  readonly #hasSharedFrames: boolean;
  #baseTable: LoadTable | undefined;
  #regions = new Map<number, SnapshotRegion>();
  #passNumber = 0;
  #room: Uint8Array | undefined;
  #givenBytes = 0;
  #nextFrame = 0;
  readonly #pending = new Set<PendingWrite>();
  /** Why a window could not be written: nothing is written any more. */
  #failure: { readonly error: unknown } | undefined;
  readonly #keepsHashes: boolean;
  #baseHashes: PageHashes | undefined;
  #keeper: HashKeeper | undefined;

  constructor(output: RecordOutput, isReadable: boolean, options: MemoryWriterOptions = {}) {
    const { base, level = DEFAULT_LEVEL, hasSharedFrames = true, maxBatchExtents } = options;
    this.#base = base;
    this.#level = level;
    this.#hasSharedFrames = hasSharedFrames;
    this.#keepsHashes = options.keepsHashes ?? false;
    this.#extents = new ExtentWriter(output, isReadable, maxBatchExtents);
  }

  setRegions(regions: readonly SnapshotRegion[]): void {
    this.#regions = new Map(regions.map((region) => [region.id, region]));
    if (!PageHashes.fits(regions)) return;
    this.#baseHashes = this.#base?.pageHashes();
    // Pages that are left to a base without hashes would have none.
    if (this.#base === undefined ? this.#keepsHashes : this.#baseHashes !== undefined)
      this.#keeper = new HashKeeper(regions, this.#baseHashes);
  }

  /** Of all pages, once all is written; undefined where there are none. */
  get pageHashes(): PageHashes | undefined {
    return this.#keeper?.hashes;
  }

  nextPass(): number {
    this.#passNumber += 1;
    return this.#passNumber;
  }

  /** Until the result is disposed, what is written stays mapped and unchanged, so that pages are looked up in it. */
  lookUpPages(memory: MemoryRange): Disposable {
    if (!this.#hasSharedFrames) return { [Symbol.dispose]: () => {} };
    this.#pages ??= PageTable.allocate(memory.sizeBytes);
    this.#lookedUp = memory;
    return {
      [Symbol.dispose]: () => {
        this.#lookedUp = undefined;
        for (const pool of this.#pools.values()) pool.settle();
        this.#pages?.clear();
      },
    };
  }

  /** Settles when nobody needs `bytes` any more. */
  async write(
    regionId: number,
    offset: number,
    bytes: Uint8Array,
    unchanged: Uint8Array | undefined,
  ): Promise<void> {
    this.#check(regionId, offset, bytes.length);
    if (unchanged !== undefined) this.#expectBase();
    this.#expectNoFailure();
    if (bytes.length === 0) return;
    const address = this.#lookUpAddress(bytes);
    const windows = this.#windowsOf(offset, bytes).map(({ start, sizeBytes }) => ({
      regionId,
      passNumber: this.#passNumber,
      offset: offset + start,
      plain: bytes.subarray(start, start + sizeBytes),
      address: address && address + start,
      frameNumber: this.#nextFrame++,
      unchanged: unchanged?.subarray(start / MEMORY_PAGE_BYTES, (start + sizeBytes) / MEMORY_PAGE_BYTES),
    }));
    if (this.#isForWorkers(bytes.length, unchanged)) await this.#packInWorkers(windows);
    else for (const window of windows) this.#attempt(() => this.#packHere(window));
    this.#expectNoFailure();
  }

  /** 0 for what is not looked up: a buffer of its owner's, which soon holds other pages. */
  #lookUpAddress(bytes: Uint8Array): number {
    if (this.#lookedUp === undefined) return 0;
    const address = addressOf(bytes);
    const offset = address - this.#lookedUp.address;
    return offset >= 0 && offset + bytes.length <= this.#lookedUp.sizeBytes ? address : 0;
  }

  hole(regionId: number, offset: number, sizeBytes: number): void {
    this.#check(regionId, offset, sizeBytes);
    if (sizeBytes > 0) this.#bare("zero", regionId, offset, sizeBytes);
  }

  /** As in the parent, by somebody who knows. */
  unchanged(regionId: number, offset: number, sizeBytes: number): void {
    this.#expectBase();
    this.#check(regionId, offset, sizeBytes);
    if (sizeBytes > 0) this.#bare("parent", regionId, offset, sizeBytes);
  }

  /** Writes what is left and says what lives. @throws UsageError unless every region is covered, once per pass. */
  finish(): { extents: Extent[]; stats: MemoryStats } {
    if (this.#pending.size > 0)
      throw new UsageError("memory is still being written: await writeMemory first");
    this.#expectNoFailure();
    this.#extents.flush();
    const extents = livingExtents(this.#extents.extents, (earlier, later) => {
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
      compressedBytes: this.#extents.compressedBytes,
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

  #expectBase(): void {
    if (this.#base === undefined) throw new UsageError("only a snapshot with a base can leave memory to it");
  }

  /** Windows are placed in order: once Workers have some, they get all. */
  #isForWorkers(sizeBytes: number, unchanged: Uint8Array | undefined): boolean {
    if (CompressionPool.workerCount() === 1) return false;
    const sameBytes = MEMORY_PAGE_BYTES * (unchanged?.reduce((count, flag) => count + flag, 0) ?? 0);
    const changedBytes = sizeBytes - sameBytes;
    this.#givenBytes += changedBytes;
    const isDense =
      unchanged === undefined ||
      (changedBytes >= LEAST_CHANGED.share * sizeBytes && changedBytes >= LEAST_CHANGED.bytes);
    return this.#pools.size > 0 || (isDense && this.#givenBytes >= LEAST_POOL_BYTES);
  }

  /** Workers that compare with the base need a table of all its frames; where it is known what changed, none do. */
  #poolThat(compares: boolean): CompressionPool {
    const known = this.#pools.get(compares);
    if (known !== undefined) return known;
    // Windows of two pools are not placed in the order of their calls.
    if (this.#pools.size > 0) this.#keeper = undefined;
    this.#pages ??= PageTable.allocate(0);
    const parent = compares ? this.#parentSetup() : undefined;
    const setup = { level: this.#level, pages: this.#pages, parent, hashes: this.#hashSetup(compares) };
    const pool = new CompressionPool(setup, (error) => {
      this.#failure ??= { error };
    });
    this.#pools.set(compares, pool);
    return pool;
  }

  async #packInWorkers(windows: readonly PlacedWindow[]): Promise<void> {
    const pool = this.#poolThat(this.#base !== undefined && windows[0]?.unchanged === undefined);
    const pending = new PendingWrite(windows.length);
    this.#pending.add(pending);
    const jobs = windows.map((window) => ({
      window,
      take: (packed: PackedWindow | undefined, room: Uint8Array, pageHashes: BigUint64Array) => {
        this.#attempt(() => {
          if (packed === undefined) this.#packHere(window);
          else this.#place(window, packed, room, pageHashes);
        });
        pending.oneDone();
      },
    }));
    pool.submit(jobs);
    try {
      await pending.promise;
    } finally {
      this.#pending.delete(pending);
    }
  }

  /** Once something has failed, windows are only waited for. */
  #attempt(action: () => void): void {
    if (this.#failure !== undefined) return;
    try {
      action();
    } catch (error) {
      this.#failure = { error };
      for (const pool of this.#pools.values()) pool.cancel();
    }
  }

  #expectNoFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** One window on this thread. */
  #packHere(window: PlacedWindow): void {
    this.#room ??= new Uint8Array(WINDOW_ROOM_BYTES);
    this.#packer ??= new WindowPacker(createZstd(this.#level), {
      pages: this.#pages,
      parent: this.#baseHashes === undefined ? this.#parentPages() : undefined,
      parentHashes: this.#baseHashes,
      hashKey: this.#hashKey,
    });
    const packed: PackedWindow = this.#packer.pack(window, this.#room);
    this.#place(window, packed, this.#room, this.#packer.pageHashes);
  }

  #place(window: PlacedWindow, packed: PackedWindow, room: Uint8Array, pageHashes: BigUint64Array): void {
    this.#extents.place(window, packed, room);
    this.#keeper?.window(window, pageHashes);
  }

  #hashSetup(compares: boolean): HashSetup | undefined {
    const key = this.#hashKey;
    if (key === undefined) return undefined;
    const regions = [...this.#regions.values()];
    const parent =
      compares && this.#baseHashes !== undefined ? { memory: this.#baseHashes.memory, regions } : undefined;
    return { key, parent };
  }

  get #hashKey(): Uint8Array | undefined {
    return this.#keeper?.hashes.key ?? this.#baseHashes?.key;
  }

  #windowsOf(offset: number, bytes: Uint8Array): { start: number; sizeBytes: number }[] {
    const windows = windowsOf(offset, bytes.length);
    if (this.#hasSharedFrames) return windows;
    return windows.flatMap(({ start, sizeBytes }) =>
      zeroRuns(bytes.subarray(start, start + sizeBytes)).map((run) => ({
        ...run,
        start: start + run.offset,
      })),
    );
  }

  #bare(kind: "zero" | "parent", regionId: number, offset: number, sizeBytes: number): void {
    this.#expectNoFailure();
    this.#extents.bare(kind, { regionId, passNumber: this.#passNumber, offset, sizeBytes });
    // What an earlier pass has under way would come later: then it is not known what the last content is.
    if (this.#passNumber > 0 && this.#pending.size > 0) this.#keeper = undefined;
    else if (kind === "zero") this.#keeper?.hole(regionId, offset, sizeBytes);
    else this.#keeper?.unchanged(regionId, offset, sizeBytes);
  }

  #parentSetup(): ParentSetup | undefined {
    if (this.#base === undefined || this.#baseHashes !== undefined) return undefined;
    this.#baseTable ??= tableOf(this.#base);
    return { table: this.#baseTable.memory, files: this.#base.inputs.map((input) => input.share()) };
  }

  #parentPages(): ParentPages | undefined {
    if (this.#base === undefined) return undefined;
    this.#baseTable ??= tableOf(this.#base);
    return new ParentPages(this.#baseTable, this.#base.inputs);
  }

  [Symbol.dispose](): void {
    this.#failure ??= { error: new UsageError("the snapshot was given up") };
    for (const pool of this.#pools.values()) pool[Symbol.dispose]();
    this.#pools.clear();
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
