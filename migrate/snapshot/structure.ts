import { CompatibilityError, FormatError } from "../../src/errors.ts";
import {
  MAX_SNAPSHOT_HEADER_BYTES,
  MAX_SNAPSHOT_MANIFEST_BYTES,
  MAX_SNAPSHOT_RECORD_BYTES,
} from "../../src/limits.ts";
import { readU64, viewOf } from "./bytes.ts";
import { decodeEnd, END_RECORD_BYTES } from "./end-record.ts";
import { FileCipher, SEAL_TAG_BYTES } from "./file-cipher.ts";
import type { FileInput } from "./file-input.ts";
import { decodeHeader, HEADER_PREFIX_BYTES, headerSizeBytes } from "./header.ts";
import { decodeIndex, type IndexTable } from "./index-table.ts";
import {
  decodeKeys,
  decodeManifest,
  decodeMemoryMap,
  decodeParent,
  headerInManifest,
  type SealedHeader,
  type SnapshotHeader,
  type SnapshotKeys,
  type SnapshotManifest,
  type SnapshotParent,
  type SnapshotRegion,
} from "./manifest.ts";
import {
  MANDATORY_FLAGS_MASK,
  RECORD_CHECKSUM_BYTES,
  RECORD_HEAD_BYTES,
  RECORD_OVERHEAD_BYTES,
  type RecordEntry,
  RecordFlag,
  RecordType,
  recordChecksum,
  recordTypeName,
} from "./record.ts";

/** What is known of a file once its header, end record and root have held. */
export interface SnapshotStructure {
  /** The version that the file has; all else here is as the newest version has it. */
  readonly formatVersion: number;
  readonly header: SnapshotHeader;
  readonly manifest: SnapshotManifest;
  readonly memoryMap: readonly SnapshotRegion[];
  /** The file that this one is based on. */
  readonly parent: SnapshotParent | undefined;
  readonly index: IndexTable;
  /** The records after the listed ones: index, perhaps a signature, end. */
  readonly trailer: readonly RecordEntry[];
  /** Hexadecimal. */
  readonly root: string;
}

/** Records of this format version that a reader of it has use for. */
const UNDERSTOOD: ReadonlySet<number> = new Set([
  RecordType.header,
  RecordType.manifest,
  RecordType.memoryMap,
  RecordType.extents,
  RecordType.deviceState,
  RecordType.qemuStream,
  RecordType.machineState,
  RecordType.parent,
  RecordType.keys,
  RecordType.index,
  RecordType.end,
]);

/** What stands at both ends of a file, checked against each other. */
interface Frame {
  readonly formatVersion: number;
  readonly header: SnapshotHeader | SealedHeader;
  readonly headerBytes: number;
  readonly headerChecksum: bigint;
  readonly trailer: readonly RecordEntry[];
  /** Payload of the index. */
  readonly payload: Uint8Array;
  readonly indexOffset: number;
  readonly root: Uint8Array;
}

/** Only header, end and index, for a file that may be the one that is looked for. @throws FormatError, CompatibilityError */
export function readRoot(input: FileInput): string {
  return Buffer.from(readFrame(input).root).toString("hex");
}

/**
 * Header, end, index, root, manifest and memory map, each checked before it is believed.
 *
 * @throws FormatError, CompatibilityError for a version, flag or critical record that is not known, SyscallError
 */
export function readStructure(input: FileInput, fileKey?: Uint8Array): SnapshotStructure {
  const { formatVersion, header, trailer, indexOffset, root, ...frame } = readFrame(input);
  if ("cipher" in header) input.cipher = cipherOf(header.id, fileKey);
  const payload = openPayload(input, trailer[0] as RecordEntry, frame.payload);
  // Flags and types are only believed once their checksum has held: damage is not a newer version.
  for (const entry of trailer.slice(1)) readPayload(input, entry);
  refuseUnknown(trailer, input.cipher !== undefined);
  const index = decodeIndex(payload, indexOffset + RECORD_HEAD_BYTES, indexOffset);
  refuseUnknown(index.records, input.cipher !== undefined);
  const first = index.records[0] as RecordEntry;
  const isHeader = first.type === RecordType.header && first.checksum === frame.headerChecksum;
  if (!isHeader || first.payloadBytes + RECORD_OVERHEAD_BYTES !== frame.headerBytes) {
    throw new FormatError("the header is not the one that the index lists", "header", 0);
  }
  const json = <Type>(
    type: number,
    decode: (bytes: Uint8Array, offset: number) => Type,
  ): Type | undefined => {
    const entry = single(index, type);
    return entry === undefined ? undefined : decode(readJson(input, entry), entry.offset + RECORD_HEAD_BYTES);
  };
  const manifest = json(RecordType.manifest, decodeManifest);
  if (manifest === undefined) throw new FormatError("the snapshot has no manifest", "index", indexOffset);
  if (input.cipher !== undefined) expectSealed(index.records);
  const memoryMap = json(RecordType.memoryMap, decodeMemoryMap) ?? [];
  const parent = json(RecordType.parent, decodeParent);
  return {
    formatVersion,
    header: "cipher" in header ? headerInManifest(manifest, 0) : header,
    manifest,
    memoryMap,
    parent,
    index,
    trailer,
    root: Buffer.from(root).toString("hex"),
  };
}

/** Both ends of a file, and nothing that needs a key. @throws FormatError, CompatibilityError */
export function readFrame(input: FileInput): Frame {
  const { formatVersion, header, headerBytes, headerChecksum } = readHead(input);
  if (input.sizeBytes < headerBytes + END_RECORD_BYTES) {
    throw new FormatError("the file was cut off after its header", "end", input.sizeBytes);
  }
  return { formatVersion, header, headerBytes, headerChecksum, ...readTail(input) };
}

/** The file's header, checked. @throws FormatError, CompatibilityError */
export function readHead(
  input: FileInput,
): Pick<Frame, "formatVersion" | "header" | "headerBytes" | "headerChecksum"> {
  const headerBytes = headerSizeBytes(input.read(0, HEADER_PREFIX_BYTES, "header"));
  const { formatVersion, header, checksum } = decodeHeader(input.read(0, headerBytes, "header"));
  return { formatVersion, header, headerBytes, headerChecksum: checksum };
}

/** End record, index and root, which hold without the header. @throws FormatError, CompatibilityError */
export function readTail(input: FileInput): Pick<Frame, "trailer" | "payload" | "indexOffset" | "root"> {
  const endOffset = input.sizeBytes - END_RECORD_BYTES;
  if (endOffset < 0) throw new FormatError("the file is too short for an end", "end", 0);
  const end = decodeEnd(input.read(endOffset, END_RECORD_BYTES, "end"), input.sizeBytes);
  const trailer = readTrailer(input, end.indexOffset, endOffset);
  const indexEntry = trailer[0] as RecordEntry;
  if (
    indexEntry.type !== RecordType.index ||
    indexEntry.payloadBytes + RECORD_OVERHEAD_BYTES !== end.indexBytes
  ) {
    throw new FormatError("there is no index where the end record says", "end", endOffset);
  }
  const payload = new Uint8Array(readPayload(input, indexEntry));
  const root = new Uint8Array(Bun.CryptoHasher.hash("sha256", payload));
  if (Buffer.compare(root, end.root) !== 0) {
    throw new FormatError("the root hash does not match the index", "index", end.indexOffset);
  }
  return { trailer, payload, indexOffset: end.indexOffset, root };
}

/**
 * The payload of a record, after its head and checksum were found to be those of `entry`. Valid until the next read.
 *
 * @throws FormatError
 */
export function readPayload(input: FileInput, entry: RecordEntry): Uint8Array {
  const section = sectionOf(entry);
  if (entry.payloadBytes > MAX_SNAPSHOT_RECORD_BYTES) {
    throw new FormatError(
      `a record of ${entry.payloadBytes} bytes is above the limit`,
      section,
      entry.offset,
    );
  }
  const bytes = input.read(entry.offset, entry.payloadBytes + RECORD_OVERHEAD_BYTES, section);
  const payload = bytes.subarray(RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + entry.payloadBytes);
  const checksum = recordChecksum(bytes.subarray(0, RECORD_HEAD_BYTES), payload);
  const stored = viewOf(bytes).getBigUint64(RECORD_HEAD_BYTES + entry.payloadBytes, true);
  const head = decodeHead(bytes, entry.offset);
  const isListed = head.type === entry.type && head.flags === entry.flags && head.id === entry.id;
  if (
    stored !== checksum ||
    checksum !== entry.checksum ||
    !isListed ||
    head.payloadBytes !== entry.payloadBytes
  ) {
    throw new FormatError("the checksum of the record does not match", section, entry.offset);
  }
  return payload;
}

/** The payload of a record that is sealed, opened; of any other, as it is. Extents are opened piece by piece instead. */
export function openPayload(
  input: FileInput,
  { offset, flags, type, id }: RecordEntry,
  payload: Uint8Array,
): Uint8Array {
  if ((flags & RecordFlag.encrypted) === 0) return payload;
  const section = sectionOf({ type, id });
  const { cipher } = input;
  if (cipher === undefined || payload.length < SEAL_TAG_BYTES) {
    throw new FormatError("a record is sealed that cannot be", section, offset);
  }
  const place = { position: offset + RECORD_HEAD_BYTES, type, recordId: id, frameNumber: 0, isLast: true };
  return cipher.open(payload, place, section);
}

/** Without this, somebody without the key could put a plain record into an encrypted file. */
function expectSealed(records: readonly RecordEntry[]): void {
  for (const { type, flags, offset } of records) {
    if (type === RecordType.header || type === RecordType.keys || (flags & RecordFlag.encrypted) !== 0)
      continue;
    throw new FormatError("a record of an encrypted file is not sealed", recordTypeName(type), offset);
  }
}

function cipherOf(fileId: string, key: Uint8Array | undefined): FileCipher {
  if (key !== undefined) return new FileCipher(key, fileId);
  throw new CompatibilityError(
    "the snapshot is encrypted: give --identity FILE or --passphrase-file FILE",
    {},
    "LOCKED",
  );
}

/** What a file shows without its key; undefined for one that is not encrypted. @throws FormatError, CompatibilityError */
export function readKeys(input: FileInput): SnapshotKeys | undefined {
  const headerBytes = headerSizeBytes(input.read(0, HEADER_PREFIX_BYTES, "header"));
  if (!("cipher" in decodeHeader(input.read(0, headerBytes, "header")).header)) return undefined;
  const head = decodeHead(input.read(headerBytes, RECORD_HEAD_BYTES, "keys"), headerBytes);
  if (head.type !== RecordType.keys || head.payloadBytes > MAX_SNAPSHOT_HEADER_BYTES) {
    throw new FormatError("there are no keys behind the header of an encrypted file", "keys", headerBytes);
  }
  const sizeBytes = head.payloadBytes + RECORD_OVERHEAD_BYTES;
  const stored = input.read(headerBytes, sizeBytes, "keys");
  const checksum = viewOf(stored).getBigUint64(sizeBytes - RECORD_CHECKSUM_BYTES, true);
  const payload = readPayload(input, { ...head, offset: headerBytes, checksum });
  return decodeKeys(payload, headerBytes + RECORD_HEAD_BYTES);
}

/** The file's header once more, against its entry in the index. @throws FormatError, CompatibilityError */
export function readHeaderEntry(input: FileInput, entry: RecordEntry): void {
  const { checksum } = decodeHeader(input.read(0, entry.payloadBytes + RECORD_OVERHEAD_BYTES, "header"));
  if (checksum !== entry.checksum)
    throw new FormatError("the header is not the one that the index lists", "header", 0);
}

/** "device-state 2", "extents": the name of a record in an error. */
export function sectionOf(entry: Pick<RecordEntry, "type" | "id">): string {
  if (entry.type === RecordType.deviceState) return `device-state ${entry.id >> 32n}`;
  return recordTypeName(entry.type);
}

function single(index: IndexTable, type: number): RecordEntry | undefined {
  const found = index.records.filter((entry) => entry.type === type);
  if (found.length < 2) return found[0];
  throw new FormatError(
    `there are ${found.length} records where one belongs`,
    recordTypeName(type),
    found[1]?.offset,
  );
}

function readJson(input: FileInput, entry: RecordEntry): Uint8Array {
  if (entry.payloadBytes > MAX_SNAPSHOT_MANIFEST_BYTES) {
    throw new FormatError(`${entry.payloadBytes} bytes are above the limit`, sectionOf(entry), entry.offset);
  }
  return openPayload(input, entry, readPayload(input, entry));
}

/** Walks from the index to the end record; their checksums are in the records themselves. */
function readTrailer(input: FileInput, indexOffset: number, endOffset: number): RecordEntry[] {
  const trailer: RecordEntry[] = [];
  for (let offset = indexOffset; offset < input.sizeBytes; ) {
    const head = decodeHead(input.read(offset, RECORD_HEAD_BYTES, "index"), offset);
    const sizeBytes = head.payloadBytes + RECORD_OVERHEAD_BYTES;
    const isLast = offset === endOffset;
    if (offset + sizeBytes > (isLast ? input.sizeBytes : endOffset) || trailer.length > 2) {
      throw new FormatError("the records after the index do not lead to the end", "index", offset);
    }
    const stored = input.read(offset + sizeBytes - 8, 8, "index");
    trailer.push({ ...head, offset, checksum: viewOf(stored).getBigUint64(0, true) });
    offset += sizeBytes;
  }
  return trailer;
}

/** Of a record; nothing of it is checked but what must be zero. @throws FormatError */
export function decodeHead(bytes: Uint8Array, offset: number): Omit<RecordEntry, "offset" | "checksum"> {
  const view = viewOf(bytes);
  if (view.getUint32(4, true) !== 0)
    throw new FormatError("reserved bytes are not zero", "record", offset + 4);
  return {
    type: view.getUint16(0, true),
    flags: view.getUint16(2, true),
    id: view.getBigUint64(8, true),
    payloadBytes: readU64(view, 16),
  };
}

function refuseUnknown(entries: readonly RecordEntry[], isSealed: boolean): void {
  for (const { type, flags, offset } of entries) {
    if (type !== RecordType.header && (flags & RecordFlag.critical) === 0) continue;
    const unknownFlags = flags & MANDATORY_FLAGS_MASK & ~(RecordFlag.critical | RecordFlag.encrypted);
    const isForSealed = type === RecordType.keys || (flags & RecordFlag.encrypted) !== 0;
    const reason = !UNDERSTOOD.has(type)
      ? "is not known"
      : isForSealed && !isSealed
        ? "is encrypted, in a file that is not,"
        : unknownFlags !== 0
          ? `has the unknown flags 0x${unknownFlags.toString(16)}`
          : undefined;
    if (reason === undefined) continue;
    throw new CompatibilityError(
      `the critical record "${recordTypeName(type)}" at ${offset} ${reason} to this vhu: use a newer one`,
      { details: { recordType: type, flags, offset } },
    );
  }
}
