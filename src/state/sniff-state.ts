import { STATE_MAGIC } from "./frame.ts";

/** passt's migration header starts with this, big-endian. */
const PASST_MAGIC = Uint8Array.of(0xb1, 0xbb, 0x1d, 0x1b, 0x0b, 0xb1, 0xd1, 0xb0);

/** What a device state looks like. virtiofsd's postcard and crosvm's CBOR have no magic: they are "unknown". */
export type StateFormat = "vhu-device-state" | "passt" | "unknown";

/** Guesses from the first 8 bytes or more. The result is for people; nothing is decided by it. */
export function sniffState(firstBytes: Uint8Array): { format: StateFormat } {
  if (startsWith(firstBytes, STATE_MAGIC)) return { format: "vhu-device-state" };
  if (startsWith(firstBytes, PASST_MAGIC)) return { format: "passt" };
  return { format: "unknown" };
}

function startsWith(bytes: Uint8Array, magic: Uint8Array): boolean {
  return bytes.length >= magic.length && magic.every((byte, index) => byte === bytes[index]);
}
