/** Pieces of QEMU's stream, in its byte order. */
import { RAM_FLAG, SECTION } from "../stream-format.ts";

export function be32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function be64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** u8 length, name. */
export function text8(text: string): Uint8Array {
  return Buffer.concat([Buffer.of(Buffer.byteLength(text)), Buffer.from(text)]);
}

/** Of a memory section: its end mark and footer. */
export function endOfSection(sectionId: number): Uint8Array {
  return Buffer.concat([be64(RAM_FLAG.endOfSection), Buffer.of(SECTION.footer), be32(sectionId)]);
}
