/**
 * The index: every record with its place and checksum, every byte stream with its sha256, every living extent. The
 * root of the file is the sha256 of the index's payload.
 */
import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_DEVICES, MAX_SNAPSHOT_EXTENTS, MAX_SNAPSHOT_RECORDS } from "../../src/limits.ts";
import { readU64, viewOf, writeU64 } from "./bytes.ts";
import { EXTENT_ENTRY_BYTES, type Extent, encodeExtent } from "./extent.ts";
import { RECORD_OVERHEAD_BYTES, type RecordEntry } from "./record.ts";

/** u32 version, u32 leaf kind, u32 records, u32 streams, u32 extents, u32 0, u64 zero, duplicate, data, compressed, u64 0. */
export const INDEX_FIXED_BYTES = 64;
/** u16 type, u16 flags, u32 0, u64 id, u64 offset, u64 size of the whole record, u64 checksum. */
export const RECORD_ENTRY_BYTES = 40;
/** u16 type, u16 0, u32 stream id, u32 chunks, u32 0, u64 size, sha256[32]. */
const STREAM_ENTRY_BYTES = 56;
const INDEX_VERSION = 0;
/** Records are listed with their xxh3. 1 is reserved for a further sha256 of each, for files that are signed. */
const LEAF_KIND_XXH3 = 0;
const SHA256_BYTES = 32;

/** Sums over the living extents; `compressedBytes` are the frames of the file. */
export interface MemoryStats {
  readonly zeroBytes: number;
  readonly duplicateBytes: number;
  readonly dataBytes: number;
  readonly compressedBytes: number;
}

/** A byte stream that is stored in chunks: a device state, a QEMU stream, a machine state. */
export interface StreamEntry {
  readonly type: number;
  readonly streamId: number;
  readonly chunkCount: number;
  readonly sizeBytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

export interface IndexTable {
  readonly records: readonly RecordEntry[];
  readonly streams: readonly StreamEntry[];
  readonly stats: MemoryStats;
  /** Entries of 56 bytes, decoded when asked for: there may be millions. */
  readonly extentTable: Uint8Array;
}

export function encodeIndex(
  records: readonly RecordEntry[],
  streams: readonly StreamEntry[],
  extents: readonly Extent[],
  stats: MemoryStats,
): Uint8Array {
  const streamsAt = INDEX_FIXED_BYTES + records.length * RECORD_ENTRY_BYTES;
  const extentsAt = streamsAt + streams.length * STREAM_ENTRY_BYTES;
  const bytes = new Uint8Array(extentsAt + extents.length * EXTENT_ENTRY_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, INDEX_VERSION, true);
  view.setUint32(4, LEAF_KIND_XXH3, true);
  view.setUint32(8, records.length, true);
  view.setUint32(12, streams.length, true);
  view.setUint32(16, extents.length, true);
  writeU64(view, 24, stats.zeroBytes);
  writeU64(view, 32, stats.duplicateBytes);
  writeU64(view, 40, stats.dataBytes);
  writeU64(view, 48, stats.compressedBytes);
  for (const [index, record] of records.entries()) {
    encodeRecordEntry(view, INDEX_FIXED_BYTES + index * RECORD_ENTRY_BYTES, record);
  }
  for (const [index, stream] of streams.entries()) {
    const at = streamsAt + index * STREAM_ENTRY_BYTES;
    view.setUint16(at, stream.type, true);
    view.setUint32(at + 4, stream.streamId, true);
    view.setUint32(at + 8, stream.chunkCount, true);
    writeU64(view, at + 16, stream.sizeBytes);
    bytes.set(Buffer.from(stream.sha256, "hex"), at + 24);
  }
  for (const [index, extent] of extents.entries()) {
    encodeExtent(view, extentsAt + index * EXTENT_ENTRY_BYTES, extent);
  }
  return bytes;
}

/** A state of each device, QEMU's stream and the machine's own state. */
const MAX_STREAMS = MAX_SNAPSHOT_DEVICES + 2;

/**
 * @param offset Of the payload in the file.
 * @param end Where the index record starts: the listed records must fill the file up to there.
 * @throws FormatError, CompatibilityError
 */
export function decodeIndex(payload: Uint8Array, offset: number, end: number): IndexTable {
  const view = viewOf(payload);
  if (payload.length < INDEX_FIXED_BYTES) throw new FormatError("the index is too short", "index", offset);
  const [version, leafKind] = [view.getUint32(0, true), view.getUint32(4, true)];
  if (version !== INDEX_VERSION || leafKind !== LEAF_KIND_XXH3) {
    throw new CompatibilityError(
      `the index has version ${version} and leaf kind ${leafKind}: use a newer vhu`,
    );
  }
  const [recordCount, streamCount, extentCount] = [8, 12, 16].map((at) => view.getUint32(at, true)) as [
    number,
    number,
    number,
  ];
  const isWithin = recordCount > 0 && recordCount <= MAX_SNAPSHOT_RECORDS && streamCount <= MAX_STREAMS;
  if (!isWithin || extentCount > MAX_SNAPSHOT_EXTENTS) {
    throw new FormatError(
      `${recordCount} records, ${streamCount} streams and ${extentCount} extents are outside the limits`,
      "index",
      offset,
    );
  }
  const streamsAt = INDEX_FIXED_BYTES + recordCount * RECORD_ENTRY_BYTES;
  const extentsAt = streamsAt + streamCount * STREAM_ENTRY_BYTES;
  if (extentsAt + extentCount * EXTENT_ENTRY_BYTES !== payload.length) {
    throw new FormatError("the index is not as long as its counts say", "index", offset + 8);
  }
  return {
    records: decodeRecordEntries(view, recordCount, offset, end),
    streams: Array.from({ length: streamCount }, (_, index) =>
      decodeStreamEntry(payload, streamsAt + index * STREAM_ENTRY_BYTES),
    ),
    stats: {
      zeroBytes: readU64(view, 24),
      duplicateBytes: readU64(view, 32),
      dataBytes: readU64(view, 40),
      compressedBytes: readU64(view, 48),
    },
    extentTable: payload.subarray(extentsAt),
  };
}

function encodeRecordEntry(view: DataView, at: number, record: RecordEntry): void {
  view.setUint16(at, record.type, true);
  view.setUint16(at + 2, record.flags, true);
  view.setBigUint64(at + 8, record.id, true);
  writeU64(view, at + 16, record.offset);
  writeU64(view, at + 24, record.payloadBytes + RECORD_OVERHEAD_BYTES);
  view.setBigUint64(at + 32, record.checksum, true);
}

/** The records follow each other from the start of the file without a gap, so that the root stands for every byte. */
function decodeRecordEntries(view: DataView, count: number, fileOffset: number, end: number): RecordEntry[] {
  const records: RecordEntry[] = [];
  let position = 0;
  for (let index = 0; index < count; index += 1) {
    const at = INDEX_FIXED_BYTES + index * RECORD_ENTRY_BYTES;
    const [offset, sizeBytes] = [readU64(view, at + 16), readU64(view, at + 24)];
    if (offset !== position || sizeBytes < RECORD_OVERHEAD_BYTES) {
      throw new FormatError("the listed records do not follow each other", "index", fileOffset + at);
    }
    position += sizeBytes;
    records.push({
      type: view.getUint16(at, true),
      flags: view.getUint16(at + 2, true),
      id: view.getBigUint64(at + 8, true),
      offset,
      payloadBytes: sizeBytes - RECORD_OVERHEAD_BYTES,
      checksum: view.getBigUint64(at + 32, true),
    });
  }
  if (position !== end) {
    throw new FormatError(
      `the listed records end at ${position}, the index starts at ${end}`,
      "index",
      fileOffset,
    );
  }
  return records;
}

function decodeStreamEntry(payload: Uint8Array, at: number): StreamEntry {
  const view = viewOf(payload);
  return {
    type: view.getUint16(at, true),
    streamId: view.getUint32(at + 4, true),
    chunkCount: view.getUint32(at + 8, true),
    sizeBytes: readU64(view, at + 16),
    sha256: Buffer.from(payload.subarray(at + 24, at + 24 + SHA256_BYTES)).toString("hex"),
  };
}
