import { PeerError } from "../../src/errors.ts";

/**
 * The few FUSE messages that the files workload sends (Linux include/uapi/linux/fuse.h). All numbers little-endian.
 * u64 handles are carried as decimal strings: they are opaque, and a saved workload keeps them.
 */
const OPCODE = { lookup: 1, open: 14, read: 15, init: 26 } as const;
const IN_HEADER_BYTES = 40;
const OUT_HEADER_BYTES = 16;
const ROOT_NODE = "1";

/** Protocol 7.31: what FUSE clients of today still accept without the extended INIT. */
const VERSION = { major: 7, minor: 31 } as const;

/** Most bytes of one READ. */
const FUSE_READ_BYTES = 16 << 10;
/** What a request and an answer need at most. */
export const FUSE_REQUEST_BYTES = 512;
export const FUSE_ANSWER_BYTES = OUT_HEADER_BYTES + FUSE_READ_BYTES;

function request(
  opcode: number,
  unique: number,
  node: string,
  bodyBytes: number,
): { bytes: Uint8Array; body: DataView } {
  const bytes = new Uint8Array(IN_HEADER_BYTES + bodyBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint32(4, opcode, true);
  view.setBigUint64(8, BigInt(unique), true);
  view.setBigUint64(16, BigInt(node), true);
  view.setUint32(32, process.pid, true);
  return { bytes, body: new DataView(bytes.buffer, IN_HEADER_BYTES) };
}

export function initRequest(unique: number): Uint8Array {
  const { bytes, body } = request(OPCODE.init, unique, "0", 16);
  body.setUint32(0, VERSION.major, true);
  body.setUint32(4, VERSION.minor, true);
  body.setUint32(8, FUSE_READ_BYTES, true);
  return bytes;
}

/** Looks a name up in the root of the share. */
export function lookupRequest(unique: number, name: string): Uint8Array {
  const encoded = new TextEncoder().encode(name);
  const { bytes } = request(OPCODE.lookup, unique, ROOT_NODE, encoded.length + 1);
  bytes.set(encoded, IN_HEADER_BYTES);
  return bytes;
}

/** Opens for reading. */
export function openRequest(unique: number, node: string): Uint8Array {
  return request(OPCODE.open, unique, node, 8).bytes;
}

export function readRequest(unique: number, node: string, handle: string): Uint8Array {
  const { bytes, body } = request(OPCODE.read, unique, node, 40);
  body.setBigUint64(0, BigInt(handle), true);
  body.setUint32(16, FUSE_READ_BYTES, true);
  return bytes;
}

/** The body of an answer. @throws PeerError when it is one to another request, or an error */
export function answerBody(answer: Uint8Array, unique: number, what: string): Uint8Array {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
  if (answer.length < OUT_HEADER_BYTES) throw new PeerError(`${what}: an answer of ${answer.length} bytes`);
  const sizeBytes = view.getUint32(0, true);
  if (
    view.getBigUint64(8, true) !== BigInt(unique) ||
    sizeBytes < OUT_HEADER_BYTES ||
    sizeBytes > answer.length
  ) {
    throw new PeerError(`${what}: the answer is to another request`);
  }
  const error = view.getInt32(4, true);
  if (error !== 0) throw new PeerError(`${what}: the file system answered with errno ${-error}`);
  return answer.subarray(OUT_HEADER_BYTES, sizeBytes);
}

/** Node of a LOOKUP's answer: u64 nodeid, then generation, validity and attributes. */
export function lookedUpNode(body: Uint8Array): string {
  return u64(body, 0);
}

/** Handle of an OPEN's answer: u64 fh, u32 open_flags. */
export function openedHandle(body: Uint8Array): string {
  return u64(body, 0);
}

function u64(body: Uint8Array, offset: number): string {
  if (body.length < offset + 8) throw new PeerError("an answer of the file system is too short");
  return new DataView(body.buffer, body.byteOffset, body.length).getBigUint64(offset, true).toString();
}
