/**
 * A part of a disk as it travels (docs/migration-protocol.md): bytes within 1 MiB of it, as they are, as a zstd frame, or zeros.
 * Pure.
 *
 * Payload, little-endian: u32 disk, u32 bytes of the disk, u64 offset, u64 xxh3 of those bytes (0 for zeros), u8 codec, three
 * zeros; the frame.
 */
import { FormatError } from "../../src/errors.ts";
import { MAX_LIVE_DISKS, MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";

const HEAD_BYTES = 28;
const CODECS = ["plain", "zstd", "zero"] as const;
/** A chunk lies within one of these of its disk, and so always takes the same stream. */
export const DISK_WINDOW_BYTES = MAX_SNAPSHOT_FRAME_BYTES;

export interface DiskChunk {
  /** Its place in the list of the disks that are copied. */
  readonly disk: number;
  readonly offset: number;
  readonly sizeBytes: number;
  readonly codec: (typeof CODECS)[number];
  readonly checksum: bigint;
  readonly frame: Uint8Array;
}

export function encodeDiskChunk({ disk, offset, sizeBytes, codec, checksum, frame }: DiskChunk): Uint8Array {
  const payload = new Uint8Array(HEAD_BYTES + frame.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, disk, true);
  view.setUint32(4, sizeBytes, true);
  view.setBigUint64(8, BigInt(offset), true);
  view.setBigUint64(16, checksum, true);
  view.setUint8(24, CODECS.indexOf(codec));
  payload.set(frame, HEAD_BYTES);
  return payload;
}

/** @throws FormatError unless it is a chunk as it should be; that its disk has that place is for the caller to see */
export function decodeDiskChunk(payload: Uint8Array): DiskChunk {
  if (payload.length < HEAD_BYTES) throw fault("it is too short", 0);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const [disk, sizeBytes] = [view.getUint32(0, true), view.getUint32(4, true)];
  const codec = CODECS[view.getUint8(24)];
  const padding = view.getUint8(25) + view.getUint16(26, true);
  if (codec === undefined || padding !== 0) throw fault("its codec is unknown", 24);
  if (disk >= MAX_LIVE_DISKS) throw fault(`there is no disk ${disk}`, 0);
  const whole = view.getBigUint64(8, true);
  if (whole > BigInt(Number.MAX_SAFE_INTEGER)) throw fault("its offset is too large", 8);
  const offset = Number(whole);
  if (sizeBytes === 0 || (offset % DISK_WINDOW_BYTES) + sizeBytes > DISK_WINDOW_BYTES) {
    throw fault(`${sizeBytes} bytes at ${offset} are not within one window`, 4);
  }
  const frame = payload.subarray(HEAD_BYTES);
  const isFit = codec === "plain" ? frame.length === sizeBytes : (codec === "zero") === (frame.length === 0);
  if (!isFit) throw fault(`its frame has ${frame.length} bytes`, HEAD_BYTES);
  return { disk, offset, sizeBytes, codec, checksum: view.getBigUint64(16, true), frame };
}

export function diskChecksum(bytes: Uint8Array): bigint {
  return xxh3(bytes);
}

function fault(message: string, offset: number): FormatError {
  return new FormatError(`a part of a disk is damaged: ${message}`, "disk chunk", offset);
}
