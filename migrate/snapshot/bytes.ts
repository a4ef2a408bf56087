/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A u64 as a number: exact below 2^53, Infinity from there on, so that every limit refuses it. */
export function readU64(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  return high > 0x1f_ffff ? Number.POSITIVE_INFINITY : high * 0x1_0000_0000 + view.getUint32(at, true);
}

export function writeU64(view: DataView, at: number, value: number): void {
  view.setBigUint64(at, BigInt(value), true);
}
