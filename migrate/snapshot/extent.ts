import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { readU64, writeU64 } from "./bytes.ts";
import { frameBoundBytes } from "./compression.ts";
import { SEAL_TAG_BYTES } from "./file-cipher.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";

/** "duplicate" is a range whose frame belongs to an earlier "data" extent with the same content; "parent" is as in the parent file. */
export type ExtentKind = "zero" | "duplicate" | "data" | "parent";

/** A zstd frame in the file. */
export interface Frame {
  /** From the start of the file. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly plainBytes: number;
  /** xxh3 of the plain bytes. */
  readonly checksum: bigint;
  /** In an encrypted file, its number in its record, from 1, plus 0x8000 for the last one. */
  readonly sealNumber?: number;
}

/** In `sealNumber`. */
export const LAST_FRAME = 0x8000;

/** A range of a memory region and where its content is. */
export interface Extent {
  readonly regionId: number;
  /** Extents of a later pass replace those of an earlier one. */
  readonly passNumber: number;
  /** From the start of the region. */
  readonly offset: number;
  readonly sizeBytes: number;
  readonly kind: ExtentKind;
  /** Absent for "zero" and "parent". */
  readonly frame?: Frame;
  /** The range's first byte within the frame's plain bytes; above 0 where a later pass replaced the front. */
  readonly skipBytes: number;
}

/** u32 region, u32 pass, u64 offset, u64 size, u8 kind, u8 codec, u16 0, u32 frame size, u64 frame offset, u64 xxh3, u32 plain, u32 skip. */
export const EXTENT_ENTRY_BYTES = 56;

const KINDS: readonly ExtentKind[] = ["zero", "duplicate", "data", "parent"];
const CODEC_NONE = 0;
const CODEC_ZSTD = 1;

export function encodeExtent(view: DataView, at: number, extent: Extent): void {
  view.setUint32(at, extent.regionId, true);
  view.setUint32(at + 4, extent.passNumber, true);
  writeU64(view, at + 8, extent.offset);
  writeU64(view, at + 16, extent.sizeBytes);
  view.setUint8(at + 24, KINDS.indexOf(extent.kind));
  const { frame } = extent;
  if (frame === undefined) return;
  view.setUint8(at + 25, CODEC_ZSTD);
  view.setUint16(at + 26, frame.sealNumber ?? 0, true);
  view.setUint32(at + 28, frame.sizeBytes, true);
  writeU64(view, at + 32, frame.offset);
  view.setBigUint64(at + 40, frame.checksum, true);
  view.setUint32(at + 48, frame.plainBytes, true);
  view.setUint32(at + 52, extent.skipBytes, true);
}

/**
 * One entry, with everything checked that it says about itself.
 *
 * @param fileOffset Of the entry, for the error.
 * @param endOffset Where frames must end.
 * @throws FormatError
 */
export function decodeExtent(view: DataView, at: number, fileOffset: number, endOffset: number): Extent {
  const fail = (message: string): never => {
    throw new FormatError(message, "extent", fileOffset);
  };
  const codec = view.getUint8(at + 25);
  const kind = KINDS[view.getUint8(at + 24)] ?? fail(`extent kind ${view.getUint8(at + 24)} is not known`);
  const extent = {
    regionId: view.getUint32(at, true),
    passNumber: view.getUint32(at + 4, true),
    offset: readU64(view, at + 8),
    sizeBytes: readU64(view, at + 16),
    kind,
    skipBytes: view.getUint32(at + 52, true),
  };
  const frame = {
    offset: readU64(view, at + 32),
    sizeBytes: view.getUint32(at + 28, true),
    plainBytes: view.getUint32(at + 48, true),
    checksum: view.getBigUint64(at + 40, true),
  };
  if (!isPages(extent.offset) || !isPages(extent.sizeBytes) || extent.sizeBytes === 0) {
    fail("an extent is not made of whole pages");
  }
  const sealNumber = view.getUint16(at + 26, true);
  if (kind === "zero" || kind === "parent") {
    const isBare =
      codec === CODEC_NONE && frame.sizeBytes + frame.offset + frame.plainBytes + extent.skipBytes === 0;
    if (!isBare || sealNumber !== 0 || frame.checksum !== 0n) fail(`an extent of kind "${kind}" has a frame`);
    return extent;
  }
  if (codec !== CODEC_ZSTD) fail(`codec ${codec} is not known`);
  if (!isPages(frame.plainBytes) || frame.plainBytes === 0 || frame.plainBytes > MAX_SNAPSHOT_FRAME_BYTES) {
    fail(`a frame of ${frame.plainBytes} plain bytes is outside the limits`);
  }
  if (frame.sizeBytes > frameBoundBytes(frame.plainBytes) + SEAL_TAG_BYTES)
    fail("a frame is larger than its content");
  if (frame.offset + frame.sizeBytes > endOffset) fail("a frame lies outside the file's records");
  if (!isPages(extent.skipBytes) || extent.skipBytes + extent.sizeBytes > frame.plainBytes) {
    fail("an extent reaches beyond its frame");
  }
  return { ...extent, frame: sealNumber === 0 ? frame : { ...frame, sealNumber } };
}

function isPages(bytes: number): boolean {
  return bytes % MEMORY_PAGE_BYTES === 0;
}
