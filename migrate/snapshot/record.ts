/**
 * Records, the unit of a snapshot file (docs/snapshot-format.md). All integers are little-endian.
 *
 *     record: u16 type, u16 flags, u32 reserved, u64 id, u64 length, payload[length], u64 checksum
 */
import { xxh3 } from "../../src/state/mod.ts";

export const RECORD_HEAD_BYTES = 24;
export const RECORD_CHECKSUM_BYTES = 8;
export const RECORD_OVERHEAD_BYTES = RECORD_HEAD_BYTES + RECORD_CHECKSUM_BYTES;

/** The numbers are part of the format and are never used again for something else. */
export const RecordType = {
  /** Only in the index, as the entry of the file's header. */
  header: 0,
  manifest: 1,
  memoryMap: 2,
  extents: 3,
  deviceState: 4,
  qemuStream: 5,
  machineState: 6,
  /** Reserved: wrapped keys. If present it is the first record, since the index may be encrypted. */
  keys: 7,
  /** Reserved: the file that this one is based on, by its root. */
  parent: 8,
  /** Reserved: one device's description on its own. */
  device: 9,
  /** Optional: a hash of each page, for a snapshot that is based on this one. */
  pageHashes: 10,
  index: 0xf0,
  /** Reserved: between index and end. */
  signature: 0xf1,
  end: 0xff,
} as const;

export const RecordFlag = {
  /** A reader that does not know the type refuses the file. */
  critical: 1,
  /** Reserved: the payload is encrypted. */
  encrypted: 2,
} as const;

/** Flags of which a reader must know each one; the upper 8 are free to ignore. */
export const MANDATORY_FLAGS_MASK = 0x00ff;

export interface RecordHead {
  readonly type: number;
  readonly flags: number;
  readonly id: bigint;
  /** Of the payload. */
  readonly payloadBytes: number;
}

/** A record as the index lists it. */
export interface RecordEntry extends RecordHead {
  /** Of the head, from the start of the file. */
  readonly offset: number;
  readonly checksum: bigint;
}

/** "manifest", or "type 4711" for a type that this version does not know. */
export function recordTypeName(type: number): string {
  return Object.entries(RecordType).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
}

export function encodeRecordHead(head: RecordHead): Uint8Array {
  const bytes = new Uint8Array(RECORD_HEAD_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, head.type, true);
  view.setUint16(2, head.flags, true);
  view.setBigUint64(8, head.id, true);
  view.setBigUint64(16, BigInt(head.payloadBytes), true);
  return bytes;
}

/** The checksum: xxh3 over the head and the xxh3 of the payload. Two levels need no contiguous copy of both. */
export function recordChecksum(head: Uint8Array, payload: Uint8Array): bigint {
  const bytes = new Uint8Array(RECORD_HEAD_BYTES + 8);
  bytes.set(head);
  new DataView(bytes.buffer).setBigUint64(RECORD_HEAD_BYTES, xxh3(payload), true);
  return xxh3(bytes);
}

/** The id of chunk `sequence` of a stream (device state, QEMU stream, machine state). */
export function chunkId(streamId: number, sequence: number): bigint {
  return (BigInt(streamId) << 32n) | BigInt(sequence);
}
