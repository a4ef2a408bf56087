import { ProtocolError } from "../errors.ts";
import { MAX_PAYLOAD_BYTES } from "../limits.ts";

/** u32 request, u32 flags, u32 payload size; packed. */
export const HEADER_BYTES = 12;

export const headerFlag = {
  /** The protocol's version, in bits 0 and 1. */
  VERSION: 0x1,
  VERSION_MASK: 0x3,
  REPLY: 0x4,
  NEED_REPLY: 0x8,
} as const;

/** The flags of every reply, exactly: QEMU refuses any other. */
export const REPLY_FLAGS = headerFlag.VERSION | headerFlag.REPLY;

const REQUEST_BITS = headerFlag.VERSION_MASK | headerFlag.NEED_REPLY;

export interface Header {
  readonly request: number;
  readonly flags: number;
  /** Payload bytes that follow the header. */
  readonly size: number;
}

/** Writes a header at the start of `view`. */
export function encodeHeader(view: DataView, request: number, flags: number, size: number): void {
  view.setUint32(0, request, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, size, true);
}

/** Reads the header at the start of `view`. It is not checked: see checkRequestHeader and checkReplyHeader. */
export function decodeHeader(view: DataView): Header {
  return {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    size: view.getUint32(8, true),
  };
}

export const needsReply = (header: Header): boolean => (header.flags & headerFlag.NEED_REPLY) !== 0;

/**
 * Checks a header that must begin a request.
 *
 * @param name the message's name for the error; the number where it has none
 * @throws ProtocolError for a version other than 1, the REPLY bit, unknown flag bits or too large a payload.
 *   Each of them means that we no longer know where a message begins.
 */
export function checkRequestHeader(
  header: Header,
  name: string = String(header.request),
  maxPayloadBytes: number = MAX_PAYLOAD_BYTES,
): void {
  if ((header.flags & headerFlag.VERSION_MASK) !== headerFlag.VERSION) {
    throw new ProtocolError(`version ${header.flags & headerFlag.VERSION_MASK}, expected 1`, name, "flags");
  }
  if ((header.flags & ~REQUEST_BITS) !== 0) {
    throw new ProtocolError(`flags ${hex(header.flags)} are not those of a request`, name, "flags");
  }
  checkSize(header, name, maxPayloadBytes);
}

/**
 * Checks a header that must begin the reply to `expectedRequest`.
 *
 * @throws ProtocolError for another request, flags that are not exactly 0x5, or too large a payload
 */
export function checkReplyHeader(
  header: Header,
  expectedRequest: number,
  maxPayloadBytes: number = MAX_PAYLOAD_BYTES,
  name: string = String(expectedRequest),
): void {
  if (header.request !== expectedRequest) {
    throw new ProtocolError(
      `reply to request ${header.request}, expected ${expectedRequest}`,
      name,
      "request",
    );
  }
  if (header.flags !== REPLY_FLAGS) {
    throw new ProtocolError(`reply flags ${hex(header.flags)}, expected 0x5`, name, "flags");
  }
  checkSize(header, name, maxPayloadBytes);
}

function checkSize(header: Header, name: string, maxPayloadBytes: number): void {
  if (header.size <= maxPayloadBytes) return;
  throw new ProtocolError(`payload of ${header.size} bytes, the limit is ${maxPayloadBytes}`, name, "size");
}

const hex = (value: number): string => `0x${value.toString(16)}`;
