/** Records found without the index: the last resort for a damaged file. */
import { FormatError } from "../../src/errors.ts";
import { MAX_SALVAGE_READS, MAX_SNAPSHOT_RECORD_BYTES } from "../../src/limits.ts";
import { viewOf } from "./bytes.ts";
import type { FileInput } from "./file-input.ts";
import {
  MANDATORY_FLAGS_MASK,
  RECORD_HEAD_BYTES,
  RECORD_OVERHEAD_BYTES,
  type RecordEntry,
  RecordType,
} from "./record.ts";
import { decodeHead, readPayload } from "./structure.ts";

const WINDOW_BYTES = 1024 * 1024;
const KNOWN_TYPES: ReadonlySet<number> = new Set(
  Object.values(RecordType).filter((type) => type !== RecordType.header),
);

/**
 * The whole records behind `from`, in order. Where there is none, the next one is looked for byte by byte: nothing says how
 * long what is broken was.
 */
export function* scanRecords(input: FileInput, from: number): Generator<RecordEntry, void> {
  const budget = { left: MAX_SALVAGE_READS * input.sizeBytes };
  for (let offset = from; offset + RECORD_OVERHEAD_BYTES <= input.sizeBytes; ) {
    const entry = wholeRecordAt(input, offset, budget);
    if (entry !== undefined) {
      yield entry;
      offset += entry.payloadBytes + RECORD_OVERHEAD_BYTES;
    } else if (budget.left > 0) {
      offset = nextCandidate(input, offset + 1);
    } else return;
  }
}

function wholeRecordAt(input: FileInput, offset: number, budget: { left: number }): RecordEntry | undefined {
  try {
    const head = decodeHead(input.read(offset, RECORD_HEAD_BYTES, "record"), offset);
    const sizeBytes = head.payloadBytes + RECORD_OVERHEAD_BYTES;
    const fits = head.payloadBytes <= MAX_SNAPSHOT_RECORD_BYTES && offset + sizeBytes <= input.sizeBytes;
    if (!fits || (head.flags & MANDATORY_FLAGS_MASK) > 3) return undefined;
    budget.left -= sizeBytes;
    const checksum = viewOf(input.read(offset + sizeBytes - 8, 8, "record")).getBigUint64(0, true);
    const entry = { ...head, offset, checksum };
    readPayload(input, entry);
    return entry;
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** The next place that could be the head of a record: a known type and flags, zeros where they belong, a length that fits. */
function nextCandidate(input: FileInput, from: number): number {
  for (let start = from; start < input.sizeBytes; start += WINDOW_BYTES) {
    const sizeBytes = Math.min(WINDOW_BYTES + RECORD_HEAD_BYTES, input.sizeBytes - start);
    const bytes = input.read(start, sizeBytes, "record");
    const last = Math.min(WINDOW_BYTES, sizeBytes - RECORD_HEAD_BYTES + 1);
    for (let at = 0; at < last; at += 1) if (isCandidate(bytes, at)) return start + at;
  }
  return input.sizeBytes;
}

function isCandidate(bytes: Uint8Array, at: number): boolean {
  const zeros = [4, 5, 6, 7, 20, 21, 22, 23];
  if (bytes[at + 1] !== 0 || (bytes[at + 2] as number) > 3 || bytes[at + 3] !== 0) return false;
  return KNOWN_TYPES.has(bytes[at] as number) && zeros.every((place) => bytes[at + place] === 0);
}
