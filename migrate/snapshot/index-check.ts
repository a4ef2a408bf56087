import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_BATCH_EXTENTS, MAX_STATE_SECTION_BYTES } from "../../src/limits.ts";
import { viewOf } from "./bytes.ts";
import { decodeExtent, EXTENT_ENTRY_BYTES, type Extent } from "./extent.ts";
import { SEAL_TAG_BYTES } from "./file-cipher.ts";
import type { FileInput } from "./file-input.ts";
import { BATCH_HEAD_BYTES } from "./frame-batch.ts";
import { livingExtents } from "./living-extents.ts";
import { RECORD_HEAD_BYTES, type RecordEntry, RecordFlag, RecordType } from "./record.ts";
import { readPayload, type SnapshotStructure } from "./structure.ts";

const STREAM_TYPES: ReadonlySet<number> = new Set([
  RecordType.deviceState,
  RecordType.qemuStream,
  RecordType.machineState,
]);

/** The living extents and the streams must be exactly what the records make of them. @throws FormatError */
export function compareWithRecords(
  input: FileInput,
  structure: SnapshotStructure,
  living: readonly Extent[],
): void {
  const written: Extent[] = [];
  const places = new Map<Extent, number>();
  for (const entry of structure.index.records) {
    if (entry.type !== RecordType.extents) continue;
    for (const extent of batchExtents(input, entry)) {
      written.push(extent);
      places.set(extent, entry.offset);
    }
  }
  const expected = livingExtents(written, (earlier, later) => {
    const message = `extents overlap in pass ${later.passNumber}, at 0x${earlier.offset.toString(16)} and 0x${later.offset.toString(16)}`;
    throw new FormatError(message, `extents of memory region ${later.regionId}`, places.get(later));
  });
  const order = new Map(structure.memoryMap.map((region, index) => [region.id, index]));
  expected.sort((a, b) => (order.get(a.regionId) ?? -1) - (order.get(b.regionId) ?? -1));
  const differs = expected.findIndex((extent, index) => !isEqual(extent, living[index]));
  if (differs >= 0 || expected.length !== living.length) {
    throw new FormatError("the index does not list the extents that the records hold", "index");
  }
  expectStreams(structure);
}

/** The extents that a record tells of. @throws FormatError */
export function batchExtents(input: FileInput, entry: RecordEntry): Extent[] {
  const payload = readPayload(input, entry);
  const offset = entry.offset + RECORD_HEAD_BYTES;
  const count = payload.length < BATCH_HEAD_BYTES ? 0 : viewOf(payload).getUint32(0, true);
  const tableEnd = BATCH_HEAD_BYTES + count * EXTENT_ENTRY_BYTES;
  if (count === 0 || count > MAX_SNAPSHOT_BATCH_EXTENTS || tableEnd > payload.length) {
    throw new FormatError(`a batch of ${count} extents is outside the limits`, "extents", offset);
  }
  const table = openTable(input, entry, payload, count, tableEnd);
  const extents: Extent[] = [];
  for (let at = 0; at < table.length; at += EXTENT_ENTRY_BYTES) {
    extents.push(decodeExtent(viewOf(table), at, offset + BATCH_HEAD_BYTES + at, offset + payload.length));
  }
  return extents;
}

function openTable(
  input: FileInput,
  { offset, flags, type, id }: RecordEntry,
  payload: Uint8Array,
  count: number,
  tableEnd: number,
): Uint8Array {
  if ((flags & RecordFlag.encrypted) === 0) return payload.subarray(BATCH_HEAD_BYTES, tableEnd);
  const end = tableEnd + SEAL_TAG_BYTES;
  if (input.cipher === undefined || end > payload.length) {
    throw new FormatError(`a sealed table of ${count} extents does not fit`, "extents", offset);
  }
  const position = offset + RECORD_HEAD_BYTES + BATCH_HEAD_BYTES;
  const place = { position, type, recordId: id, frameNumber: 0, isLast: end === payload.length };
  return input.cipher.open(payload.subarray(BATCH_HEAD_BYTES, end), place, "extents");
}

function expectStreams({ index }: SnapshotStructure): void {
  const known = new Set(index.streams.map((stream) => `${stream.type}:${stream.streamId}`));
  for (const entry of index.records) {
    const isOrphan = STREAM_TYPES.has(entry.type) && !known.has(`${entry.type}:${entry.id >> 32n}`);
    if (isOrphan) throw new FormatError("a chunk belongs to no state of the index", "index", entry.offset);
  }
  const isMisnamed = index.streams.some(
    ({ type, streamId, sizeBytes }) =>
      type !== RecordType.deviceState &&
      (streamId !== 0 || (type === RecordType.machineState && sizeBytes > MAX_STATE_SECTION_BYTES)),
  );
  if (isMisnamed) throw new FormatError("a stream has an id or a size that it cannot have", "index");
  if (known.size !== index.streams.length || index.streams.some((stream) => !STREAM_TYPES.has(stream.type))) {
    throw new FormatError("the index lists a state twice or of an unknown type", "index");
  }
}

function isEqual(a: Extent, b: Extent | undefined): boolean {
  const isSame =
    a.regionId === b?.regionId &&
    a.passNumber === b.passNumber &&
    a.offset === b.offset &&
    a.sizeBytes === b.sizeBytes;
  return (
    isSame &&
    a.kind === b.kind &&
    a.skipBytes === b.skipBytes &&
    a.frame?.offset === b.frame?.offset &&
    a.frame?.sizeBytes === b.frame?.sizeBytes &&
    a.frame?.plainBytes === b.frame?.plainBytes &&
    a.frame?.checksum === b.frame?.checksum &&
    a.frame?.sealNumber === b.frame?.sealNumber
  );
}
