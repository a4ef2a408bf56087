import { FormatError } from "../../src/errors.ts";
import { viewOf } from "./bytes.ts";
import { FileInput } from "./file-input.ts";
import { RECORD_CHECKSUM_BYTES, RECORD_HEAD_BYTES, RECORD_OVERHEAD_BYTES } from "./record.ts";
import { decodeHead, readFrame, readPayload } from "./structure.ts";
import { attempt, type VerifyOptions, type VerifyProblem, type VerifyResult } from "./verify.ts";

/**
 * An encrypted file without its key: every byte against its checksum, and the root. Whether the records are those that the index
 * lists, only the key can tell.
 *
 * @throws SyscallError, CompatibilityError
 */
export function verifyLocked(path: string, { onProgress }: VerifyOptions = {}): VerifyResult {
  using input = FileInput.open(path);
  const problems: VerifyProblem[] = [];
  const frame = attempt(problems, () => readFrame(input));
  if (frame === undefined) return { ok: false, problems };
  const { headerBytes, indexOffset, root, trailer } = frame;
  for (const entry of trailer) attempt(problems, () => readPayload(input, entry));
  let recordCount = 1 + trailer.length;
  for (let offset = headerBytes; offset < indexOffset; recordCount += 1) {
    const next = attempt(problems, () => placeOfNext(input, offset, indexOffset));
    // Where the next record begins, nobody knows then.
    if (next === undefined) break;
    attempt(problems, () => checkRecordAt(input, offset, indexOffset));
    offset = next;
    onProgress?.({ doneBytes: offset, totalBytes: input.sizeBytes });
  }
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, root: Buffer.from(root).toString("hex"), sizeBytes: input.sizeBytes, recordCount };
}

function placeOfNext(input: FileInput, offset: number, end: number): number {
  const head = decodeHead(input.read(offset, RECORD_HEAD_BYTES, "record"), offset);
  const next = offset + head.payloadBytes + RECORD_OVERHEAD_BYTES;
  if (next <= end) return next;
  throw new FormatError("a record reaches into the index", "record", offset);
}

/** A record by its own checksum. @param end Where the index begins. @returns where the next record is @throws FormatError */
export function checkRecordAt(input: FileInput, offset: number, end: number): number {
  const next = placeOfNext(input, offset, end);
  const head = decodeHead(input.read(offset, RECORD_HEAD_BYTES, "record"), offset);
  const stored = input.read(next - RECORD_CHECKSUM_BYTES, RECORD_CHECKSUM_BYTES, "record");
  readPayload(input, { ...head, offset, checksum: viewOf(stored).getBigUint64(0, true) });
  return next;
}
