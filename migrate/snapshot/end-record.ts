import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { readU64, viewOf, writeU64 } from "./bytes.ts";
import { RECORD_HEAD_BYTES, RECORD_OVERHEAD_BYTES, RecordType, recordChecksum } from "./record.ts";

/** u64 offset of the index, u64 size of its record, u64 size of the file, u32 version, u32 0, sha256[32]. */
const END_PAYLOAD_BYTES = 64;
/** The end record is the last thing in a file and always of this size. */
export const END_RECORD_BYTES = END_PAYLOAD_BYTES + RECORD_OVERHEAD_BYTES;
const END_VERSION = 0;

interface EndFields {
  readonly indexOffset: number;
  /** Of the whole index record. */
  readonly indexBytes: number;
  readonly fileBytes: number;
  /** sha256 of the index's payload. */
  readonly root: Uint8Array;
}

export function encodeEnd(fields: EndFields): Uint8Array {
  const payload = new Uint8Array(END_PAYLOAD_BYTES);
  const view = viewOf(payload);
  writeU64(view, 0, fields.indexOffset);
  writeU64(view, 8, fields.indexBytes);
  writeU64(view, 16, fields.fileBytes);
  view.setUint32(24, END_VERSION, true);
  payload.set(fields.root, 32);
  return payload;
}

/**
 * @param bytes The last 96 bytes of the file.
 * @throws FormatError, CompatibilityError
 */
export function decodeEnd(bytes: Uint8Array, fileBytes: number): EndFields {
  const offset = fileBytes - END_RECORD_BYTES;
  const view = viewOf(bytes);
  if (view.getUint16(0, true) !== RecordType.end || readU64(view, 16) !== END_PAYLOAD_BYTES) {
    throw new FormatError("there is no end record: the file was cut off or never finished", "end", offset);
  }
  const payload = bytes.subarray(RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + END_PAYLOAD_BYTES);
  const checksum = recordChecksum(bytes.subarray(0, RECORD_HEAD_BYTES), payload);
  if (view.getBigUint64(RECORD_HEAD_BYTES + END_PAYLOAD_BYTES, true) !== checksum) {
    throw new FormatError("the checksum of the end record does not match", "end", offset);
  }
  const body = viewOf(payload);
  if (body.getUint32(24, true) !== END_VERSION) {
    throw new CompatibilityError(`the end record has version ${body.getUint32(24, true)}: use a newer vhu`);
  }
  const fields = {
    indexOffset: readU64(body, 0),
    indexBytes: readU64(body, 8),
    fileBytes: readU64(body, 16),
    root: new Uint8Array(payload.subarray(32)),
  };
  if (fields.fileBytes !== fileBytes) {
    throw new FormatError(`the file has ${fileBytes} bytes, its end says ${fields.fileBytes}`, "end", offset);
  }
  if (fields.indexOffset + fields.indexBytes > offset || fields.indexBytes < RECORD_OVERHEAD_BYTES) {
    throw new FormatError("the index lies outside the file", "end", offset);
  }
  return fields;
}
