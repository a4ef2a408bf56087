import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { END_RECORD_BYTES, encodeEnd } from "../../../migrate/snapshot/end-record.ts";
import type { Extent } from "../../../migrate/snapshot/extent.ts";
import { fullHeader } from "../../../migrate/snapshot/header.ts";
import { encodeIndex, type StreamEntry } from "../../../migrate/snapshot/index-table.ts";
import { encodeManifest, encodeMemoryMap } from "../../../migrate/snapshot/manifest.ts";
import type { SnapshotManifest, SnapshotRegion } from "../../../migrate/snapshot/mod.ts";
import { RecordType } from "../../../migrate/snapshot/record.ts";
import { RecordOutput } from "../../../migrate/snapshot/record-output.ts";
import { FormatError, VhuError } from "../../../src/errors.ts";

export const PAGE = 4096;
export const MiB = 1024 * 1024;
export const headerFields = { writer: { name: "vhu", version: "0.1.0" }, runState: "running" } as const;
export const manifest: SnapshotManifest = { devices: [], memory: { totalBytes: 0 } };

/** A folder of its own that is gone at the end of the block. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "vhu-snapshot-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Whole pages that compress, different for each seed. */
export function pages(count: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(count * PAGE);
  let state = seed * 2_654_435_761;
  for (let at = 0; at < bytes.length; at += 1) {
    if (at % 16 === 0) state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = ((state >>> 24) & 0x3f) + (at % 16) + 1;
  }
  return bytes;
}

/** What an action throws, which must be one of ours. */
export function failureOf(action: () => unknown): VhuError {
  try {
    action();
  } catch (error) {
    if (error instanceof VhuError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

/** As failureOf, for an action that takes its time. */
export async function asyncFailureOf(action: () => unknown): Promise<VhuError> {
  try {
    await action();
  } catch (error) {
    if (error instanceof VhuError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

/** As failureOf, for damaged bytes: a FormatError that names its place. */
export function formatFailureOf(action: () => unknown): FormatError {
  const error = failureOf(action);
  if (error instanceof FormatError && error.section !== "") return error;
  throw error;
}

export interface Forgery {
  readonly regions?: readonly SnapshotRegion[];
  /** Instead of a manifest that is one. */
  readonly manifest?: Uint8Array;
  /** Writes records; what it returns goes into the index. */
  records?(output: RecordOutput): {
    readonly extents?: readonly Extent[];
    readonly streams?: readonly StreamEntry[];
  };
  /** Changes the index before it is hashed. */
  index?(payload: Uint8Array): Uint8Array;
  trailer?(output: RecordOutput): void;
}

/** A file whose checksums and root are right, and whose content is what a liar wants. */
export function forge(path: string, forgery: Forgery): void {
  const fd = openSync(path, "w+");
  try {
    const output = new RecordOutput(fd, path);
    output.header(fullHeader(headerFields));
    output.record(RecordType.manifest, 1, 0n, forgery.manifest ?? encodeManifest(manifest));
    if (forgery.regions) output.record(RecordType.memoryMap, 1, 0n, encodeMemoryMap(forgery.regions));
    const { extents = [], streams = [] } = forgery.records?.(output) ?? {};
    const stats = { zeroBytes: 0, duplicateBytes: 0, dataBytes: 0, compressedBytes: 0 };
    const plain = encodeIndex(output.entries, streams, extents, stats);
    const payload = forgery.index?.(plain) ?? plain;
    const indexOffset = output.position;
    output.record(RecordType.index, 1, 0n, payload);
    const indexBytes = output.position - indexOffset;
    forgery.trailer?.(output);
    const root = new Uint8Array(Bun.CryptoHasher.hash("sha256", payload));
    const fileBytes = output.position + END_RECORD_BYTES;
    output.record(RecordType.end, 1, 0n, encodeEnd({ indexOffset, indexBytes, fileBytes, root }));
  } finally {
    closeSync(fd);
  }
}
