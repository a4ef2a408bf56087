import assert from "node:assert/strict";
import { basename } from "node:path";
import { UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_EXTENTS, MAX_STATE_SECTION_BYTES } from "../../src/limits.ts";
import { END_RECORD_BYTES, encodeEnd } from "./end-record.ts";
import { CIPHER_NAME, FileCipher } from "./file-cipher.ts";
import type { NewFileKey } from "./file-keys.ts";
import { headerIn, requireWritable, VERSION_0_MEMORY } from "./format-versions.ts";
import { type FullHeader, fullHeader, type HeaderFields, SNAPSHOT_VERSION } from "./header.ts";
import { encodeIndex, type MemoryStats, type StreamEntry } from "./index-table.ts";
import {
  encodeKeys,
  encodeManifest,
  encodeMemoryMap,
  encodeParent,
  type SnapshotManifest,
  type SnapshotRegion,
} from "./manifest.ts";
import { type MemoryRange, MemoryWriter } from "./memory-writer.ts";
import { OutputFile } from "./output-file.ts";
import { linkTo, requireSameMachine } from "./parent-link.ts";
import { RecordFlag, RecordType } from "./record.ts";
import { RecordOutput, type WriteCall } from "./record-output.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";
import { StreamWriter } from "./stream-writer.ts";

export interface WriterOptions {
  /** The snapshot that this one is based on: only what changed since is stored. Stays open until the writer is done. */
  readonly base?: SnapshotReader | undefined;
  /** A key of its own for this file, from `newFileKey`: then it is encrypted. */
  readonly fileKey?: NewFileKey | undefined;
  /** Of zstd, 1 to 19; 1 unless told. */
  readonly level?: number | undefined;
  /** The newest unless told. @see requireWritable */
  readonly formatVersion?: number | undefined;
  /**
   * Keep a hash of each page (16 bytes, 0.4 % of the memory), so that a snapshot that is based on this one need not read this
   * one's memory to find what has changed. A base that has hashes passes them on without it.
   */
  readonly pageHashes?: boolean | undefined;
  /** For tests: how bytes get into the file. */
  readonly write?: WriteCall;
}

export interface SnapshotSummary {
  /** sha256 over the index, hexadecimal: the identity of the file. */
  readonly root: string;
  readonly sizeBytes: number;
  readonly stats: MemoryStats;
}

/**
 * Writes a snapshot, to a file or to a pipe. The file appears under its name only when `finish` has returned, whole and
 * on disk; disposing the writer before leaves what was there.
 *
 * @example
 * using writer = SnapshotWriter.toFile("web.vhu", { writer: { name: "vhu", version: "0.1.0" } });
 * writer.writeMemoryMap(regions);
 * await writer.writeMemory(0, 0, bytes);
 * writer.writeManifest(manifest);
 * const { root } = writer.finish();
 */
export class SnapshotWriter implements Disposable {
  readonly #output: RecordOutput;
  readonly #target: OutputFile | undefined;
  readonly #memory: MemoryWriter;
  readonly #streams: StreamEntry[] = [];
  readonly #streamKeys = new Set<string>();
  readonly #machineName: string | undefined;
  readonly #base: SnapshotReader | undefined;
  #sealed: FullHeader | undefined;
  #hasManifest = false;
  #hasMemoryMap = false;
  #isOpen = true;

  private constructor(
    output: RecordOutput,
    header: HeaderFields,
    { base, fileKey, level, pageHashes, formatVersion = SNAPSHOT_VERSION }: WriterOptions,
    target?: OutputFile,
  ) {
    requireWritable(formatVersion, { isIncremental: base !== undefined, isEncrypted: fileKey !== undefined });
    this.#output = output;
    this.#target = target;
    this.#machineName = header.machine?.name;
    this.#base = base;
    this.#memory = new MemoryWriter(output, target !== undefined, {
      ...{ base, level, keepsHashes: pageHashes },
      ...(formatVersion === 0 ? VERSION_0_MEMORY : {}),
    });
    const full = fullHeader(header);
    if (fileKey === undefined) output.header(headerIn(formatVersion, full), formatVersion);
    else {
      // Who wrote it, when and of what stands in the sealed manifest.
      this.#sealed = full;
      output.header({ id: full.id, cipher: CIPHER_NAME });
      output.record(
        RecordType.keys,
        RecordFlag.critical,
        0n,
        encodeKeys({ keys: fileKey.wrapped.map((key) => ({ ...key })) }),
      );
      output.cipher = new FileCipher(fileKey.key, full.id);
    }
    if (base === undefined) return;
    const link = linkTo(base, basename(base.path ?? "the base"));
    output.record(RecordType.parent, RecordFlag.critical, 0n, encodeParent({ ...link }));
  }

  /**
   * Writes to a file (0600) that gets its name from `finish`.
   *
   * @throws SyscallError, UsageError if `path` is something else than a regular file, CompatibilityError for a base that
   * this cannot be based on
   */
  static toFile(path: string, header: HeaderFields, options: WriterOptions = {}): SnapshotWriter {
    const file = new OutputFile(path);
    try {
      const output = new RecordOutput(file.fd, path, options.write);
      return new SnapshotWriter(output, header, options, file);
    } catch (error) {
      file[Symbol.dispose]();
      throw error;
    }
  }

  /** Writes to a pipe, a socket or stdout, which stays the caller's. Equal memory is not shared here: nothing can be read back. */
  static toFd(fd: number, header: HeaderFields, options: WriterOptions = {}): SnapshotWriter {
    return new SnapshotWriter(new RecordOutput(fd, `fd ${fd}`, options.write), header, options);
  }

  /** Of the snapshot that this one is based on, if it is. */
  get baseRoot(): string | undefined {
    return this.#base?.root;
  }

  /** Whether what is compared with the base is compared by hashes of its pages, and not byte by byte. */
  get hasBaseHashes(): boolean {
    return this.#base !== undefined && this.#memory.pageHashes !== undefined;
  }

  /** Once, at any time before `finish`: device features are only known when all is suspended. */
  writeManifest(manifest: SnapshotManifest): void {
    this.#expectOpen();
    if (this.#hasManifest) throw new UsageError("a snapshot has one manifest");
    this.#hasManifest = true;
    this.#output.record(
      RecordType.manifest,
      RecordFlag.critical,
      0n,
      encodeManifest(this.#sealed === undefined ? manifest : { ...manifest, header: this.#sealed }),
    );
  }

  /** Once, before any memory. */
  writeMemoryMap(regions: readonly SnapshotRegion[]): void {
    this.#expectOpen();
    if (this.#hasMemoryMap) throw new UsageError("a snapshot has one memory map");
    if (this.#base !== undefined) requireSameMachine(this.#base, this.#machineName, regions);
    this.#hasMemoryMap = true;
    this.#output.record(RecordType.memoryMap, RecordFlag.critical, 0n, encodeMemoryMap(regions));
    this.#memory.setRegions(regions);
  }

  /**
   * Whole pages of a region. Runs of zeros, and frames whose content is in the file already, are found here. They are
   * compressed in Workers meanwhile: nobody may change `bytes` before the promise has settled. Give several at a time, and
   * wait for the oldest before the next: that keeps all processors busy, in as much memory as you gave.
   *
   * @param offset From the start of the region, in bytes.
   * @param unchanged For each page, 1 where somebody knows that it is as in the base: the others are not compared with it.
   * @throws UsageError for what is no part of the memory map, SyscallError; the next call and `finish` throw the same then
   */
  writeMemory(regionId: number, offset: number, bytes: Uint8Array, unchanged?: Uint8Array): Promise<void> {
    this.#expectOpen();
    const written = this.#memory.write(regionId, offset, bytes, unchanged);
    // Who gives several waits for one at a time, and hears of the others' fault by `finish`.
    written.catch(() => {});
    return written;
  }

  /**
   * Until the result is disposed, `memory` stays mapped and unchanged: then single pages of it that are in the file already
   * are found, too. What `writeMemory` gets from elsewhere is not looked up.
   *
   * @param memory Whole pages, e.g. a `Mapping`.
   */
  lookUpPages(memory: MemoryRange): Disposable {
    return this.#memory.lookUpPages(memory);
  }

  /** Pages that are zero and need no look, e.g. a hole of a memfd. */
  writeHole(regionId: number, offset: number, sizeBytes: number): void {
    this.#expectOpen();
    this.#memory.hole(regionId, offset, sizeBytes);
  }

  /** Memory that is as in the base, e.g. by a dirty log: not looked at. @throws UsageError without a base */
  writeUnchanged(regionId: number, offset: number, sizeBytes: number): void {
    this.#expectOpen();
    this.#memory.unchanged(regionId, offset, sizeBytes);
  }

  /** What is written from now on replaces what was. Returns the number of the pass; the first one is 0. */
  nextMemoryPass(): number {
    this.#expectOpen();
    return this.#memory.nextPass();
  }

  /** One device's state, verbatim; several may be open at once. `deviceId` is the one of the manifest. */
  writeDeviceState(deviceId: number): Pick<StreamWriter, "write" | "finish"> {
    return this.#stream(RecordType.deviceState, deviceId);
  }

  /** All bytes of QEMU's stream that are not RAM. */
  writeQemuStream(): Pick<StreamWriter, "write" | "finish"> {
    return this.#stream(RecordType.qemuStream, 0);
  }

  /** The state of a native machine itself, at most 64 MiB. */
  writeMachineState(bytes: Uint8Array): void {
    if (bytes.length > MAX_STATE_SECTION_BYTES) {
      throw new UsageError(
        `a machine state of ${bytes.length} bytes is above the limit of ${MAX_STATE_SECTION_BYTES}`,
      );
    }
    const stream = this.#stream(RecordType.machineState, 0);
    stream.write(bytes);
    stream.finish();
  }

  /**
   * Index, end, fsync, rename, fsync of the directory.
   *
   * @throws UsageError if the manifest, a part of the memory or the end of a stream is missing, SyscallError
   */
  finish(): SnapshotSummary {
    this.#expectOpen();
    if (!this.#hasManifest) throw new UsageError("the manifest was never written");
    if (this.#streams.length !== this.#streamKeys.size)
      throw new UsageError("a state stream was never finished");
    const { extents, stats } = this.#memory.finish();
    const byRegion = Map.groupBy(extents, ({ regionId }) => regionId);
    for (const payload of this.#memory.pageHashes?.payloads((id) => byRegion.get(id) ?? []) ?? [])
      this.#output.record(RecordType.pageHashes, 0, BigInt(this.#output.entries.length), payload);
    if (extents.length > MAX_SNAPSHOT_EXTENTS) {
      throw new UsageError(
        `${extents.length} extents are more than a snapshot can have (${MAX_SNAPSHOT_EXTENTS})`,
      );
    }
    const indexOffset = this.#output.position;
    const payload = encodeIndex(this.#output.entries, this.#streams, extents, stats);
    const stored = this.#output.record(RecordType.index, RecordFlag.critical, 0n, payload);
    const root = new Uint8Array(Bun.CryptoHasher.hash("sha256", stored));
    const indexBytes = this.#output.position - indexOffset;
    const fileBytes = this.#output.position + END_RECORD_BYTES;
    const end = encodeEnd({ indexOffset, indexBytes, fileBytes, root });
    this.#output.record(RecordType.end, RecordFlag.critical, 0n, end);
    this.#target?.publish();
    this[Symbol.dispose]();
    return { root: Buffer.from(root).toString("hex"), sizeBytes: fileBytes, stats };
  }

  /** Without `finish`: nothing is left of the file. */
  [Symbol.dispose](): void {
    this.#isOpen = false;
    this.#memory[Symbol.dispose]();
    this.#target?.[Symbol.dispose]();
  }

  #stream(type: number, streamId: number): StreamWriter {
    this.#expectOpen();
    const key = `${type}:${streamId}`;
    if (this.#streamKeys.has(key)) throw new UsageError(`the state of device ${streamId} was given twice`);
    this.#streamKeys.add(key);
    return new StreamWriter(this.#output, type, streamId, (entry) => this.#streams.push(entry));
  }

  #expectOpen(): void {
    assert(this.#isOpen, "the snapshot is finished");
  }
}
