/**
 * A piece of a state as it travels: u8 kind, u8 last, u16 zero, u32 device, bytes. The last piece holds the u64 size and the
 * sha256 of all before it. Pure.
 */
import { FormatError } from "../../src/errors.ts";

const HEAD_BYTES = 8;
const SUM_BYTES = 8 + 32;
const KINDS = ["device", "qemu", "machine"] as const;
export type StateKind = (typeof KINDS)[number];

export type StatePiece = { readonly kind: StateKind; readonly deviceId: number } & (
  | { readonly bytes: Uint8Array }
  | { readonly sizeBytes: number; readonly sha256: string }
);

export function encodeStatePiece(piece: StatePiece): Uint8Array {
  const isLast = "sha256" in piece;
  const payload = new Uint8Array(HEAD_BYTES + (isLast ? SUM_BYTES : piece.bytes.length));
  const view = new DataView(payload.buffer);
  view.setUint8(0, KINDS.indexOf(piece.kind));
  view.setUint8(1, isLast ? 1 : 0);
  view.setUint32(4, piece.deviceId, true);
  if (isLast) {
    view.setBigUint64(HEAD_BYTES, BigInt(piece.sizeBytes), true);
    payload.set(Buffer.from(piece.sha256, "hex"), HEAD_BYTES + 8);
  } else payload.set(piece.bytes, HEAD_BYTES);
  return payload;
}

/** @throws FormatError */
export function decodeStatePiece(payload: Uint8Array): StatePiece {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (payload.length < HEAD_BYTES) throw new FormatError("a piece of a state is too short", "state", 0);
  const [kind, last, deviceId] = [KINDS[view.getUint8(0)], view.getUint8(1), view.getUint32(4, true)];
  if (kind === undefined || last > 1 || view.getUint16(2, true) !== 0) {
    throw new FormatError("a piece of a state is of no kind that is known", "state", 0);
  }
  if (last === 0) return { kind, deviceId, bytes: payload.subarray(HEAD_BYTES) };
  const sizeBytes = payload.length === HEAD_BYTES + SUM_BYTES ? view.getBigUint64(HEAD_BYTES, true) : -1n;
  if (sizeBytes < 0n || sizeBytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new FormatError("the end of a state is damaged", "state", HEAD_BYTES);
  }
  const sha256 = Buffer.from(payload.subarray(HEAD_BYTES + 8)).toString("hex");
  return { kind, deviceId, sizeBytes: Number(sizeBytes), sha256 };
}
