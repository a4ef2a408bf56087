import { FormatError } from "../../src/errors.ts";
import { PageHashCheck } from "./check-page-hashes.ts";
import type { Extent, Frame } from "./extent.ts";
import type { FileInput } from "./file-input.ts";
import { compareWithRecords } from "./index-check.ts";
import { nameDamage } from "./name-damage.ts";
import { RECORD_OVERHEAD_BYTES, RecordType } from "./record.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";
import { readHeaderEntry, readPayload, type SnapshotStructure } from "./structure.ts";

export interface VerifyOptions {
  /** Decompress everything as well. */
  readonly deep?: boolean;
  onProgress?(progress: { readonly doneBytes: number; readonly totalBytes: number }): void;
}

export interface VerifyProblem {
  readonly section: string;
  /** In the file, -1 if unknown. */
  readonly offset: number;
  readonly message: string;
}

export type VerifyResult =
  | { readonly ok: true; readonly root: string; readonly sizeBytes: number; readonly recordCount: number }
  | { readonly ok: false; readonly problems: readonly VerifyProblem[] };

/** So many problems say enough about a file. */
const MAX_PROBLEMS = 100;

/** The parts of a reader that a deep check needs. */
type Reading = Pick<SnapshotReader, "extents" | "readExtent" | "readStream">;

export function verifyStructure(
  input: FileInput,
  structure: SnapshotStructure,
  reader: Reading,
  options: VerifyOptions,
): VerifyResult {
  const problems: VerifyProblem[] = [];
  const entries = [...structure.index.records, ...structure.trailer];
  let doneBytes = 0;
  for (const entry of entries) {
    if (problems.length >= MAX_PROBLEMS) break;
    attempt(problems, () => {
      if (entry.type === RecordType.header) readHeaderEntry(input, entry);
      else readPayload(input, entry);
    });
    doneBytes += entry.payloadBytes + RECORD_OVERHEAD_BYTES;
    options.onProgress?.({ doneBytes, totalBytes: input.sizeBytes });
  }
  const living = attempt(problems, () => structure.memoryMap.flatMap((region) => reader.extents(region.id)));
  if (problems.length > 0)
    return { ok: false, problems: problems.map((problem) => nameDamage(problem, structure, reader, living)) };
  if (options.deep === true && living !== undefined)
    verifyContent(input, structure, reader, living, problems);
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, root: structure.root, sizeBytes: input.sizeBytes, recordCount: entries.length };
}

function verifyContent(
  input: FileInput,
  structure: SnapshotStructure,
  reader: Reading,
  living: readonly Extent[],
  problems: VerifyProblem[],
): void {
  attempt(problems, () => compareWithRecords(input, structure, living));
  verifyMemory(input, structure, reader, living, problems);
  if (problems.length >= MAX_PROBLEMS) return;
  for (const stream of structure.index.streams) {
    attempt(problems, () => {
      for (const chunk of reader.readStream(stream)) void chunk;
    });
  }
}

/** Every frame is unpacked once; hashes of pages, where there are some, are compared with all that use it. */
function verifyMemory(
  input: FileInput,
  structure: SnapshotStructure,
  reader: Reading,
  living: readonly Extent[],
  problems: VerifyProblem[],
): void {
  const framed = living.flatMap((extent) => (isFramed(extent) ? [extent] : []));
  const check = attempt(problems, () => PageHashCheck.of(input, structure, framed));
  const byFrame = Map.groupBy(framed, ({ frame }) => frame.offset);
  for (const [first, ...others] of byFrame.values()) {
    if (problems.length >= MAX_PROBLEMS) return;
    if (first === undefined) continue;
    attempt(problems, () => {
      const content = reader.readExtent(first);
      if (check === undefined) return;
      check.add(first, content);
      for (const extent of others) check.add(extent, reader.readExtent(extent));
    });
  }
  if (check !== undefined) attempt(problems, () => check.finish());
}

function isFramed(extent: Extent): extent is Extent & { readonly frame: Frame } {
  return extent.frame !== undefined;
}

/** Damage goes into the list; everything else goes on. */
export function attempt<Result>(problems: VerifyProblem[], action: () => Result): Result | undefined {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    problems.push({ section: error.section, offset: error.offset, message: error.message });
    return undefined;
  }
}
