/**
 * The packets of a multifd channel (QEMU's migration/multifd.h), big-endian. Pure.
 *
 * First comes a greeting of 64 bytes: u32 magic, u32 version, 16 bytes UUID, u8 channel, zeros. Then packets: u32 magic,
 * version, flags, room for pages, normal pages, bytes behind the packet; u64 number; u32 zero pages; 28 bytes; the block's name
 * in 256 bytes; u64 offsets of the normal pages and of the zero pages, with room for as many as there may be. The content of
 * the normal pages follows, in the order of their offsets.
 */
import { FormatError } from "../../src/errors.ts";

const MAGIC = 0x11223344;
const VERSION = 1;
export const GREETING_BYTES = 64;
/** Of 512 KiB: as QEMU has it for all of its versions. */
export const PACKET_PAGES = 128;
export const PAGE_BYTES = 4096;
const HEAD_BYTES = 320;
const NAME_AT = 64;
const NAME_BYTES = 256;
export const PACKET_BYTES = HEAD_BYTES + 8 * PACKET_PAGES;
export const CONTENT_BYTES = PACKET_PAGES * PAGE_BYTES;
const SYNC = 1;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export interface MultifdPacket {
  /** All that was sent before, on all channels, comes before all that is sent after. */
  readonly isSync: boolean;
  readonly block: string;
  /** In the block. Of the normal pages in the order of their content; of the zero pages ascending. */
  readonly offsets: readonly number[];
  readonly zeros: readonly number[];
}

/** The channel's number. @throws FormatError */
export function readGreeting(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, GREETING_BYTES);
  if (view.getUint32(0) !== MAGIC || view.getUint32(4) !== VERSION) {
    throw fault("it does not greet as one of version 1");
  }
  return view.getUint8(24);
}

/** @throws FormatError */
export function readPacket(bytes: Uint8Array): MultifdPacket {
  const view = new DataView(bytes.buffer, bytes.byteOffset, PACKET_BYTES);
  if (view.getUint32(0) !== MAGIC || view.getUint32(4) !== VERSION) throw fault("a packet has another magic");
  const flags = view.getUint32(8);
  const [room, normal, contentBytes] = [view.getUint32(12), view.getUint32(16), view.getUint32(20)];
  const zero = view.getUint32(36);
  if (flags > SYNC)
    throw fault(`a packet has the flags ${flags}: it is compressed, or of a kind that is not known`);
  const pages = normal + zero;
  if (normal > PACKET_PAGES || pages > PACKET_PAGES || (pages > 0 && room !== PACKET_PAGES)) {
    throw fault(`a packet of ${normal} and ${zero} pages has room for ${room}`);
  }
  if (pages > 0 && contentBytes !== normal * PAGE_BYTES)
    throw fault(`${contentBytes} bytes of ${normal} pages`);
  const offsets = Array.from({ length: pages }, (_, index) => readOffset(view, HEAD_BYTES + 8 * index));
  return {
    isSync: flags === SYNC,
    block: pages === 0 ? "" : readName(bytes),
    offsets: offsets.slice(0, normal),
    zeros: offsets.slice(normal).sort((a, b) => a - b),
  };
}

/** Ends with a zero, which has to be there. */
function readName(bytes: Uint8Array): string {
  const name = bytes.subarray(NAME_AT, NAME_AT + NAME_BYTES);
  const end = name.indexOf(0);
  if (end < 1) throw fault("a packet names no block");
  try {
    return decoder.decode(name.subarray(0, end));
  } catch (cause) {
    throw fault(`a block's name is no text: ${(cause as Error).message}`);
  }
}

function readOffset(view: DataView, at: number): number {
  const value = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  if (Number.isSafeInteger(value) && value % PAGE_BYTES === 0) return value;
  throw fault(`${value} is no page's offset`);
}

function fault(message: string): FormatError {
  return new FormatError(`a multifd channel cannot be read: ${message}`, "multifd");
}
