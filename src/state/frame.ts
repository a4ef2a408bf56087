/**
 * The layout of the framed device state (docs/device-state-format.md). All integers are little-endian.
 *
 *     preamble:  magic[8] u32 frameVersion, u32 headerLength, header[headerLength], u64 checksum
 *     block:     u8 kind, u8 zero[3], u32 length, payload[length], u64 checksum
 */
import { xxh3 } from "./xxh3.ts";

/** "VHUSTATE" in ASCII. */
export const STATE_MAGIC: Uint8Array = new TextEncoder().encode("VHUSTATE");
/** The only version of the frame itself; a device's own version is in the header. */
export const STATE_FRAME_VERSION = 1;
/** Magic, frame version and header length. */
export const STATE_PREAMBLE_BYTES = 16;
export const STATE_BLOCK_HEAD_BYTES = 8;
export const STATE_CHECKSUM_BYTES = 8;

export const StateBlock = {
  /** u16 nameLength, name, one msgpack value. */
  value: 1,
  /** name; byte chunks follow. */
  bytesBegin: 2,
  /** 1 byte to 1 MiB of the section that is open. */
  bytesChunk: 3,
  /** u64 length of the section. */
  bytesEnd: 4,
  /** u32 sections, u32 zero, u64 offset of this block: nothing may follow. */
  end: 5,
} as const;

/** What a writer says about its state before the first section. */
export interface StateHeader {
  /** E.g. "blk"; 1 to 255 bytes of UTF-8. */
  readonly deviceType: string;
  /** The version of the device's sections. */
  readonly version: number;
  /** The oldest reader that can use these sections; at most `version`. */
  readonly oldestCompatibleVersion: number;
  /** The acknowledged virtio features, 64 bits. */
  readonly features: bigint;
}

/**
 * The checksum of a block: xxh3 over its head, the checksum before it (that of the preamble for the first block) and the
 * xxh3 of its payload. Being chained, the last one stands for the whole stream; being of two levels, it needs no
 * contiguous copy of head and payload.
 */
export function blockChecksum(head: Uint8Array, previous: bigint, payload: Uint8Array): bigint {
  const bytes = new Uint8Array(STATE_BLOCK_HEAD_BYTES + 16);
  const view = new DataView(bytes.buffer);
  bytes.set(head);
  view.setBigUint64(STATE_BLOCK_HEAD_BYTES, previous, true);
  view.setBigUint64(STATE_BLOCK_HEAD_BYTES + 8, xxh3(payload), true);
  return xxh3(bytes);
}
