/**
 * A window of memory as it travels: up to 256 pages of a region, in runs that follow each other or lie apart, with the bytes
 * of those that are new as one zstd frame (docs/migration-protocol.md). Pure.
 *
 * Payload, little-endian: u32 region, u32 plain bytes, u64 offset, u64 xxh3 of all pages but zeros as they will be, u16 words,
 * u8 codec, u8 zero; the words; the frame. A word: u32 kind | pages << 8; for a duplicate then u32 region, u64 offset. A word
 * of kind "elsewhere" has no pages and then the u64 offset at which the next run is; without, it follows the last one.
 */
import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { MEMORY_PAGE_BYTES } from "../snapshot/mod.ts";

const WINDOW_PAGES = MAX_SNAPSHOT_FRAME_BYTES / MEMORY_PAGE_BYTES;
const HEAD_BYTES = 28;
const RUN_BYTES = 4;
const SOURCE_BYTES = 12;
const ELSEWHERE_BYTES = 8;
/** Room for the head and all runs, each of one page, elsewhere and a duplicate. */
export const MAX_WINDOW_HEAD_BYTES =
  HEAD_BYTES + WINDOW_PAGES * (2 * RUN_BYTES + SOURCE_BYTES + ELSEWHERE_BYTES);

export type WindowCodec = "plain" | "zstd";
const CODECS: readonly WindowCodec[] = ["plain", "zstd"];
const KINDS = ["zero", "data", "delta", "duplicate"] as const;
const ELSEWHERE = KINDS.length;

/** "data" is in the frame as it is; "delta" as the XOR with what the receiver has there; "duplicate" the receiver has elsewhere. */
export type WindowRun = {
  /** In the region, in whole pages. */
  readonly offset: number;
  readonly pages: number;
} & (
  | { readonly kind: "zero" | "data" | "delta" }
  | { readonly kind: "duplicate"; readonly sourceRegionId: number; readonly sourceOffset: number }
);

export interface MemoryWindow {
  readonly regionId: number;
  /** At least one. */
  readonly runs: readonly WindowRun[];
  readonly codec: WindowCodec;
  /** Of data and delta. */
  readonly plainBytes: number;
  readonly checksum: bigint;
}

/** Writes the head to the start of `target`. Returns its length; the frame goes behind it. */
export function encodeWindowHead(target: Uint8Array, window: MemoryWindow): number {
  const view = new DataView(target.buffer, target.byteOffset, target.byteLength);
  let next = window.runs[0]?.offset ?? 0;
  view.setUint32(0, window.regionId, true);
  view.setUint32(4, window.plainBytes, true);
  view.setBigUint64(8, BigInt(next), true);
  view.setBigUint64(16, window.checksum, true);
  view.setUint8(26, CODECS.indexOf(window.codec));
  view.setUint8(27, 0);
  let [at, words] = [HEAD_BYTES, 0];
  for (const run of window.runs) {
    if (run.offset !== next) {
      view.setUint32(at, ELSEWHERE, true);
      view.setBigUint64(at + RUN_BYTES, BigInt(run.offset), true);
      at += RUN_BYTES + ELSEWHERE_BYTES;
      words += 1;
    }
    view.setUint32(at, KINDS.indexOf(run.kind) | (run.pages << 8), true);
    at += RUN_BYTES;
    words += 1;
    next = run.offset + run.pages * MEMORY_PAGE_BYTES;
    if (run.kind !== "duplicate") continue;
    view.setUint32(at, run.sourceRegionId, true);
    view.setBigUint64(at + 4, BigInt(run.sourceOffset), true);
    at += SOURCE_BYTES;
  }
  view.setUint16(24, words, true);
  return at;
}

/** @throws FormatError unless it is a window as it should be; that its place is in the memory map is for the caller to see */
export function decodeWindow(payload: Uint8Array): MemoryWindow & { readonly frame: Uint8Array } {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (payload.length < HEAD_BYTES) throw fault("it is too short", 0);
  const codec = CODECS[view.getUint8(26)];
  if (codec === undefined || view.getUint8(27) !== 0) throw fault("its codec is unknown", 26);
  const { runs, end } = decodeRuns(view);
  const plainBytes = view.getUint32(4, true);
  let [pages, framed] = [0, 0];
  for (const { kind, pages: count } of runs) {
    pages += count;
    if (kind === "data" || kind === "delta") framed += count;
  }
  if (pages === 0 || pages > WINDOW_PAGES) throw fault(`it has ${pages} pages`, 24);
  if (framed * MEMORY_PAGE_BYTES !== plainBytes) throw fault(`its frame holds ${plainBytes} bytes`, 4);
  const frame = payload.subarray(end);
  if (codec === "plain" ? frame.length !== plainBytes : (frame.length === 0) !== (plainBytes === 0)) {
    throw fault(`its frame has ${frame.length} bytes`, end);
  }
  const checksum = view.getBigUint64(16, true);
  return { regionId: view.getUint32(0, true), runs, codec, plainBytes, checksum, frame };
}

function decodeRuns(view: DataView): { readonly runs: WindowRun[]; readonly end: number } {
  const runs: WindowRun[] = [];
  let [at, offset] = [HEAD_BYTES, pageOffset(view, 8)];
  for (let left = view.getUint16(24, true); left > 0; left -= 1) {
    if (at + RUN_BYTES > view.byteLength) throw fault("a run is cut off", at);
    const word = view.getUint32(at, true);
    if (word === ELSEWHERE) {
      if (at + RUN_BYTES + ELSEWHERE_BYTES > view.byteLength) throw fault("a run is cut off", at);
      offset = pageOffset(view, at + RUN_BYTES);
      at += RUN_BYTES + ELSEWHERE_BYTES;
      continue;
    }
    const run = decodeRun(view, at, offset);
    at += RUN_BYTES + (run.kind === "duplicate" ? SOURCE_BYTES : 0);
    offset += run.pages * MEMORY_PAGE_BYTES;
    runs.push(run);
  }
  return { runs, end: at };
}

function decodeRun(view: DataView, at: number, offset: number): WindowRun {
  const word = view.getUint32(at, true);
  const [kind, pages] = [KINDS[word & 0xff], word >>> 8];
  if (kind === undefined || pages === 0) throw fault("a run is of no kind that is known, or empty", at);
  if (kind !== "duplicate") return { kind, offset, pages };
  if (at + RUN_BYTES + SOURCE_BYTES > view.byteLength) throw fault("a run is cut off", at);
  const source = at + RUN_BYTES;
  return {
    ...{ kind, offset, pages, sourceRegionId: view.getUint32(source, true) },
    sourceOffset: pageOffset(view, source + 4),
  };
}

function pageOffset(view: DataView, at: number): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER) || Number(value) % MEMORY_PAGE_BYTES !== 0) {
    throw fault("an offset is not one of a page", at);
  }
  return Number(value);
}

function fault(message: string, offset: number): FormatError {
  return new FormatError(`a window of memory is damaged: ${message}`, "memory window", offset);
}
