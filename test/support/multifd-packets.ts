/** Packets of a multifd channel, as QEMU writes them. */
const HEAD_BYTES = 320;
const PAGES = 128;

export interface PacketFields {
  readonly flags?: number;
  readonly block?: string;
  readonly offsets?: readonly number[];
  readonly zeros?: readonly number[];
  readonly room?: number;
}

export function multifdGreeting(channel: number): Uint8Array {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x11223344);
  view.setUint32(4, 1);
  view.setUint8(24, channel);
  return bytes;
}

/** Without the content of its pages. */
export function multifdPacket(fields: PacketFields): Uint8Array {
  const { flags = 0, block = "", offsets = [], zeros = [] } = fields;
  const { room = offsets.length + zeros.length === 0 ? 0 : PAGES } = fields;
  const bytes = new Uint8Array(HEAD_BYTES + 8 * PAGES);
  const view = new DataView(bytes.buffer);
  const words = [0x11223344, 1, flags, room, offsets.length, offsets.length * 4096];
  for (const [index, word] of words.entries()) view.setUint32(4 * index, word);
  view.setUint32(36, zeros.length);
  bytes.set(new TextEncoder().encode(block), 64);
  for (const [index, offset] of [...offsets, ...zeros].entries()) {
    view.setBigUint64(HEAD_BYTES + 8 * index, BigInt(offset));
  }
  return bytes;
}
