import { CompatibilityError, FormatError, UsageError } from "../../src/errors.ts";
import { MAX_STATE_SECTION_BYTES } from "../../src/limits.ts";
import { createZstd, type Zstd } from "./compression.ts";
import type { Extent, Frame } from "./extent.ts";
import { ExtentTable } from "./extent-table.ts";
import { FileInput, type SpoolOptions } from "./file-input.ts";
import { findParent } from "./find-parent.ts";
import { recordIdAt } from "./frame-place.ts";
import { FrameReader } from "./frame-reader.ts";
import { HEADER_PREFIX_BYTES } from "./header.ts";
import type { MemoryStats, StreamEntry } from "./index-table.ts";
import { type LoadProgress, loadFrames } from "./load-pool.ts";
import type { SnapshotHeader, SnapshotManifest, SnapshotRegion } from "./manifest.ts";
import { PageHashes } from "./page-hashes.ts";
import { type ParentLink, requireParentOf } from "./parent-link.ts";
import {
  RECORD_CHECKSUM_BYTES,
  RECORD_OVERHEAD_BYTES,
  type RecordEntry,
  RecordFlag,
  RecordType,
  recordTypeName,
} from "./record.ts";
import { type ResolvedExtent, resolveExtents } from "./resolve-extents.ts";
import { readStreamChunks } from "./stream-reader.ts";
import { openPayload, readPayload, readStructure, type SnapshotStructure } from "./structure.ts";
import { type VerifyOptions, type VerifyResult, verifyStructure } from "./verify.ts";

export interface OpenOptions {
  /** Files that may be the parents of an incremental snapshot; looked at before those beside it. */
  readonly parents?: readonly string[];
  /** Of an encrypted file; `unlockSnapshot` finds it. */
  readonly fileKey?: Uint8Array;
}

/** A range of memory: bytes, or zeros of any length. */
export type MemoryPiece =
  | { readonly offset: number; readonly sizeBytes: number; readonly bytes: Uint8Array }
  | { readonly offset: number; readonly sizeBytes: number; readonly isZero: true };

export interface RecordListing extends RecordEntry {
  readonly typeName: string;
  readonly isCritical: boolean;
  readonly isEncrypted: boolean;
}

/**
 * Reads a snapshot at random. Opening it checks header, end record, index and root, and costs little at any size; what is
 * read later is checked then, before it is handed out.
 *
 * @example
 * using reader = SnapshotReader.open("web.vhu");
 * for (const piece of reader.memory(0)) if ("bytes" in piece) guest.set(piece.bytes, piece.offset);
 */
export class SnapshotReader implements Disposable {
  readonly #input: FileInput;
  readonly #structure: SnapshotStructure;
  readonly #extents: ExtentTable;
  readonly #frames = new FrameReader();
  readonly #options: OpenOptions;
  /** Roots of the files that stand on this one. */
  readonly #rootsAbove: ReadonlySet<string>;
  #parent: SnapshotReader | undefined;
  #zstd: Zstd | undefined;
  /** The records by the stream that they would belong to. */
  #chunks: ReadonlyMap<string, readonly RecordEntry[]> | undefined;

  private constructor(input: FileInput, options: OpenOptions, rootsAbove: ReadonlySet<string>) {
    this.#input = input;
    this.#options = options;
    this.#rootsAbove = rootsAbove;
    this.#structure = readStructure(input, options.fileKey);
    this.#extents = new ExtentTable(this.#structure);
  }

  /** @throws FormatError, CompatibilityError, SyscallError */
  static open(path: string, options: OpenOptions = {}): SnapshotReader {
    return SnapshotReader.over(FileInput.open(path), options);
  }

  /** Reads a pipe to its end into an unnamed file first; `fd` stays the caller's. */
  static fromFd(fd: number, options: OpenOptions & SpoolOptions = {}): SnapshotReader {
    return SnapshotReader.over(FileInput.spool(fd, options), options);
  }

  /** Over an open file, which it takes. */
  static over(
    input: FileInput,
    options: OpenOptions,
    rootsAbove: ReadonlySet<string> = new Set(),
  ): SnapshotReader {
    try {
      return new SnapshotReader(input, options, rootsAbove);
    } catch (error) {
      input[Symbol.dispose]();
      throw error;
    }
  }

  /** Of the file; what is read from it is as the newest version has it. */
  get formatVersion(): number {
    return this.#structure.formatVersion;
  }
  get header(): SnapshotHeader {
    return this.#structure.header;
  }
  get manifest(): SnapshotManifest {
    return this.#structure.manifest;
  }
  get memoryMap(): readonly SnapshotRegion[] {
    return this.#structure.memoryMap;
  }
  get stats(): MemoryStats {
    return this.#structure.index.stats;
  }
  /** sha256 over the index, hexadecimal: the identity of the file. */
  get root(): string {
    return this.#structure.root;
  }
  get sizeBytes(): number {
    return this.#input.sizeBytes;
  }
  /** The states in the file, with size and sha256, without reading them. */
  get streams(): readonly StreamEntry[] {
    return this.#structure.index.streams;
  }

  /** The file that this one is based on, as it is named here; undefined for a full snapshot. */
  get parent(): ParentLink | undefined {
    return this.#structure.parent;
  }

  /**
   * The file that this one is based on, found and opened when first asked for; closed with this one.
   *
   * @throws CompatibilityError where it is missing or of another machine, FormatError
   */
  openParent(): SnapshotReader | undefined {
    const link = this.parent;
    if (link === undefined || this.#parent !== undefined) return this.#parent;
    const { parents = [] } = this.#options;
    return this.adoptParent(findParent(link, this.#input.path, parents), { parents });
  }

  /** As `openParent`, where the file was found and unlocked. */
  adoptParent(path: string, options: OpenOptions): SnapshotReader {
    const rootsAbove = new Set([...this.#rootsAbove, this.root]);
    const parent = SnapshotReader.over(FileInput.open(path), options, rootsAbove);
    try {
      requireParentOf(this, parent, rootsAbove);
    } catch (error) {
      parent[Symbol.dispose]();
      throw error;
    }
    this.#parent = parent;
    return parent;
  }

  /** A hash of each page, where the file has them; for a writer that is based on this one. @throws FormatError */
  pageHashes(): PageHashes | undefined {
    const entries = this.#structure.index.records.filter(({ type }) => type === RecordType.pageHashes);
    const input = this.#input;
    const payloads = entries.values().map((entry) => openPayload(input, entry, readPayload(input, entry)));
    return PageHashes.read(this.memoryMap, (id) => this.extents(id), payloads, this.#parentHashes());
  }

  #parentHashes(): PageHashes | undefined {
    try {
      return this.openParent()?.pageHashes();
    } catch (error) {
      // It is missing: who has a dirty log can do without.
      if (error instanceof CompatibilityError) return undefined;
      throw error;
    }
  }

  /** The open file itself. */
  get input(): FileInput {
    return this.#input;
  }

  get indexOffset(): number {
    return this.#structure.trailer[0]?.offset ?? 0;
  }

  get isEncrypted(): boolean {
    return this.#input.cipher !== undefined;
  }

  /** Undefined for a snapshot that came through a pipe. */
  get path(): string | undefined {
    return this.#input.path;
  }

  /** Every record of the file, those that this version does not know included. The header's entry is the first. */
  records(): RecordListing[] {
    return [...this.#structure.index.records, ...this.#structure.trailer].map((entry) => ({
      ...entry,
      typeName: recordTypeName(entry.type),
      isCritical: (entry.flags & RecordFlag.critical) !== 0,
      isEncrypted: (entry.flags & RecordFlag.encrypted) !== 0,
    }));
  }

  /** The payload of a record as it is stored, after its checksum held. @throws FormatError */
  readRecord(entry: RecordEntry): Uint8Array {
    return new Uint8Array(readPayload(this.#input, entry));
  }

  /** As `readRecord`, decrypted where it is sealed as one piece: any but extents. @throws FormatError */
  openRecord(entry: RecordEntry): Uint8Array {
    const stored = readPayload(this.#input, entry);
    const isSealedInParts = entry.type === RecordType.extents;
    return new Uint8Array(isSealedInParts ? stored : openPayload(this.#input, entry, stored));
  }

  /** The JSON of the file's header, as it is stored: of an encrypted file, little. @throws FormatError */
  headerBytes(): Uint8Array {
    const [entry] = this.#structure.index.records;
    const sizeBytes = (entry?.payloadBytes ?? 0) + RECORD_OVERHEAD_BYTES;
    const bytes = this.#input.read(0, sizeBytes, "header");
    return new Uint8Array(bytes.subarray(HEADER_PREFIX_BYTES, sizeBytes - RECORD_CHECKSUM_BYTES));
  }

  /** The living extents of a region, which cover all of it, in order. @throws FormatError, UsageError */
  extents(regionId: number): readonly Extent[] {
    if (!this.memoryMap.some((region) => region.id === regionId)) {
      throw new UsageError(`the snapshot has no memory region ${regionId}`);
    }
    return this.#extents.ofRegion(regionId);
  }

  /** As `extents`, with the parents' where the file says "as in the parent". @throws as `openParent` */
  resolvedExtents(regionId: number): readonly ResolvedExtent[] {
    const own = this.extents(regionId);
    const isWhole = own.every(({ kind }) => kind !== "parent");
    const below = isWhole ? [] : (this.openParent()?.resolvedExtents(regionId) ?? []);
    return resolveExtents(own, below, (offset) => recordIdAt(this.#structure.index.records, offset));
  }

  /** The open files of the chain, by `fileNumber`. */
  get inputs(): readonly FileInput[] {
    return [this.#input, ...(this.#parent?.inputs ?? [])];
  }

  /** The content of an extent, at most 1 MiB; valid until the next call. @throws FormatError */
  readExtent(
    extent: Extent & { readonly frame: Frame; readonly fileNumber?: number; readonly recordId?: bigint },
  ): Uint8Array {
    const recordId = extent.recordId ?? recordIdAt(this.#structure.index.records, extent.frame.offset);
    return this.#frames.read(this.inputs[extent.fileNumber ?? 0] as FileInput, { ...extent, recordId });
  }

  /**
   * Writes a region into a file or memfd, in parallel, each piece after its checksum held; zeros are left out, since
   * fresh memory has them. When this throws, a part of it is missing.
   *
   * @throws FormatError, UsageError, SyscallError, and what the signal was aborted with
   */
  async loadRegion(regionId: number, targetFd: number, options: LoadProgress = {}): Promise<void> {
    const entries = this.resolvedExtents(regionId).flatMap((extent) => {
      const { frame } = extent;
      const offset = extent.offset + (options.targetOffset ?? 0);
      return frame === undefined ? [] : [{ ...extent, frame, offset }];
    });
    await loadFrames(entries, this.inputs, targetFd, options);
  }

  /** All of a region in order. @throws FormatError */
  *memory(regionId: number): Generator<MemoryPiece, void> {
    for (const extent of this.resolvedExtents(regionId)) {
      const { offset, sizeBytes, frame } = extent;
      if (frame === undefined) yield { offset, sizeBytes, isZero: true };
      else yield { offset, sizeBytes, bytes: new Uint8Array(this.readExtent({ ...extent, frame })) };
    }
  }

  /**
   * A device's state in pieces of up to 1 MiB. Each has been checked, but the whole only when the iteration ended
   * without an error: stage it, and apply it then.
   *
   * @throws FormatError, UsageError if the snapshot has no state of that device.
   */
  deviceState(deviceId: number): Generator<Uint8Array, void> {
    const stream = this.#find(RecordType.deviceState, deviceId);
    if (stream === undefined) throw new UsageError(`the snapshot has no state of device ${deviceId}`);
    return this.readStream(stream);
  }

  /** All bytes of QEMU's stream that are not RAM, as `deviceState`; undefined if there are none. */
  qemuStream(): Generator<Uint8Array, void> | undefined {
    const stream = this.#find(RecordType.qemuStream, 0);
    return stream === undefined ? undefined : this.readStream(stream);
  }

  /** The state of a native machine, whole. @throws FormatError */
  machineState(): Uint8Array | undefined {
    const stream = this.#find(RecordType.machineState, 0);
    if (stream === undefined) return undefined;
    if (stream.sizeBytes > MAX_STATE_SECTION_BYTES) {
      throw new FormatError(`${stream.sizeBytes} bytes are above the limit`, "machineState");
    }
    return Buffer.concat([...this.readStream(stream)]);
  }

  /** Any of `streams`, as `deviceState`. */
  readStream(stream: StreamEntry): Generator<Uint8Array, void> {
    this.#zstd ??= createZstd();
    this.#chunks ??= Map.groupBy(this.#structure.index.records, streamKey);
    return readStreamChunks(this.#input, this.#chunks.get(streamKeyOf(stream)) ?? [], stream, this.#zstd);
  }

  /**
   * Every byte against its checksum; with `deep`, every frame and state is decompressed too, and the index is compared
   * with the tables of the records; and the same with the files that this one is based on.
   */
  verify(options: VerifyOptions = {}): VerifyResult {
    const own = verifyStructure(this.#input, this.#structure, this, options);
    if (!own.ok || options.deep !== true || this.parent === undefined) return own;
    // Its memory is only whole with what it stands on.
    const below = this.openParent()?.verify(options);
    if (below === undefined || below.ok) return own;
    const problems = below.problems.map((problem) => ({ ...problem, section: `parent: ${problem.section}` }));
    return { ok: false, problems };
  }

  [Symbol.dispose](): void {
    this.#parent?.[Symbol.dispose]();
    this.#input[Symbol.dispose]();
  }

  #find(type: number, streamId: number): StreamEntry | undefined {
    return this.streams.find((entry) => entry.type === type && entry.streamId === streamId);
  }
}

function streamKey({ type, id }: RecordEntry): string {
  return `${type}:${id >> 32n}`;
}

function streamKeyOf({ type, streamId }: StreamEntry): string {
  return `${type}:${streamId}`;
}
