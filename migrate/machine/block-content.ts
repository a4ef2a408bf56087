import { xxh3 } from "../../src/state/mod.ts";

export const BLOCK_BYTES = 4096;
/** "VHUBLOCK", little-endian. */
const MAGIC = 0x4b434f4c42554856n;
const HEADER_BYTES = 32;

/** What a block says about itself; undefined where it was never written. */
export interface BlockContent {
  readonly sequence: bigint;
  readonly slot: number;
}

/**
 * Fills a block that can be told from every other one: magic, sequence number, slot, checksum over the rest, then bytes that
 * depend on the sequence. A write that is torn in the middle fails its checksum, one that is lost shows the old sequence.
 */
export function fillBlock(block: Uint8Array, sequence: bigint, slot: number): void {
  const view = new DataView(block.buffer, block.byteOffset, BLOCK_BYTES);
  let word = Number(BigInt.asUintN(32, sequence * 2654435761n + BigInt(slot))) | 1;
  for (let offset = HEADER_BYTES; offset < BLOCK_BYTES; offset += 4) {
    // xorshift32: cheap, and no two sequences share their bytes.
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    view.setInt32(offset, word, true);
  }
  view.setBigUint64(0, MAGIC, true);
  view.setBigUint64(8, sequence, true);
  view.setBigUint64(16, BigInt(slot), true);
  view.setBigUint64(24, checksum(block), true);
}

/** Reads a block. "torn": it is neither untouched nor whole. */
export function readBlock(block: Uint8Array): BlockContent | "untouched" | "torn" {
  const view = new DataView(block.buffer, block.byteOffset, BLOCK_BYTES);
  if (view.getBigUint64(0, true) !== MAGIC) return block.every((byte) => byte === 0) ? "untouched" : "torn";
  if (view.getBigUint64(24, true) !== checksum(block)) return "torn";
  return { sequence: view.getBigUint64(8, true), slot: Number(view.getBigUint64(16, true)) };
}

function checksum(block: Uint8Array): bigint {
  return xxh3(block.subarray(0, 24)) ^ xxh3(block.subarray(HEADER_BYTES));
}
