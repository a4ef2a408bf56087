/**
 * The frames of a live migration (docs/migration-protocol.md): a head of 16 bytes, a payload, and xxh3 over both. Pure.
 *
 * Head, little-endian: u8 type, u8 flags, u16 stream, u32 payload bytes, u64 sequence.
 */
import assert from "node:assert/strict";
import { FormatError } from "../../src/errors.ts";
import { MAX_LIVE_FRAME_BYTES, MAX_LIVE_STREAMS } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";

const FRAME_HEAD_BYTES = 16;
export const FRAME_CHECKSUM_BYTES = 8;
const FRAME_OVERHEAD_BYTES = FRAME_HEAD_BYTES + FRAME_CHECKSUM_BYTES;

/** Types below 16 belong to one connection; those from 16 on are numbered in their stream, and survive a connection. */
export const FrameType = {
  greeting: 1,
  hello: 2,
  welcome: 3,
  refused: 4,
  /** `sequence`: all frames of the stream up to it were applied. */
  applied: 5,
  /** Nothing to say, but alive. */
  alive: 6,
  message: 16,
  memory: 17,
  state: 18,
  /** Bytes of no meaning, to find out how fast the way is. */
  padding: 19,
  /** A part of a disk that is copied along. */
  disk: 20,
  /** Of a data stream: what comes behind it waits until all data streams have come to theirs. */
  pass: 21,
} as const;

const FIRST_NUMBERED_TYPE = 16;
/** A flag: a reader that does not know the type counts the frame and does nothing. */
const OPTIONAL_FLAG = 1;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  /** 0 for messages and states, then the data streams. */
  readonly stream: number;
  /** From 1 in each stream; 0 for types that are not numbered. */
  readonly sequence: number;
  readonly payload: Uint8Array;
  /** xxh3 of head and payload, as it came. */
  readonly checksum: Uint8Array;
}

const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(FrameType));

/** A frame's bytes, which nobody else has. */
export function encodeFrame({ type, flags, stream, sequence, payload }: Omit<Frame, "checksum">): Uint8Array {
  assert(payload.length <= MAX_LIVE_FRAME_BYTES, "the frame is too long");
  const bytes = new Uint8Array(FRAME_OVERHEAD_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, type);
  view.setUint8(1, flags);
  view.setUint16(2, stream, true);
  view.setUint32(4, payload.length, true);
  view.setBigUint64(8, BigInt(sequence), true);
  bytes.set(payload, FRAME_HEAD_BYTES);
  const end = FRAME_HEAD_BYTES + payload.length;
  view.setBigUint64(end, xxh3(bytes.subarray(0, end)), true);
  return bytes;
}

/** Cuts the bytes of one connection into frames. A fault is final: what follows has no meaning. */
export class FrameDecoder {
  readonly #head = new Uint8Array(FRAME_HEAD_BYTES);
  #have = 0;
  #body: Uint8Array | undefined;
  #offset = 0;

  /** @param maxPayloadBytes Raised once the peer has said who it is. */
  constructor(public maxPayloadBytes = MAX_LIVE_FRAME_BYTES) {}

  /** @throws FormatError */
  *push(bytes: Uint8Array): Generator<Frame, void> {
    for (let at = 0; at < bytes.length; ) {
      if (this.#body === undefined) {
        at += this.#fill(this.#head, bytes.subarray(at));
        if (this.#have === FRAME_HEAD_BYTES) this.#begin();
        continue;
      }
      at += this.#fill(this.#body, bytes.subarray(at));
      if (this.#have < this.#body.length) continue;
      yield this.#finish(this.#body);
    }
  }

  /** Whether a frame has begun and is not complete. */
  get isWithinFrame(): boolean {
    return this.#have > 0;
  }

  #fill(target: Uint8Array, bytes: Uint8Array): number {
    const count = Math.min(target.length - this.#have, bytes.length);
    target.set(bytes.subarray(0, count), this.#have);
    this.#have += count;
    return count;
  }

  /** Everything in the head is looked at before anything is allocated for it. */
  #begin(): void {
    const view = new DataView(this.#head.buffer);
    const [type, flags, stream] = [view.getUint8(0), view.getUint8(1), view.getUint16(2, true)];
    const payloadBytes = view.getUint32(4, true);
    if (payloadBytes > this.maxPayloadBytes) {
      throw this.#fault(`a payload of ${payloadBytes} bytes is above the limit of ${this.maxPayloadBytes}`);
    }
    if (!KNOWN_TYPES.has(type) && (flags & OPTIONAL_FLAG) === 0) {
      throw this.#fault(`a frame of the unknown type ${type}: the peer is newer, or no vhu`);
    }
    if (stream > MAX_LIVE_STREAMS) throw this.#fault(`there is no stream ${stream}`);
    const isNumbered = view.getBigUint64(8, true) !== 0n;
    if (KNOWN_TYPES.has(type) && type !== FrameType.applied && isNumbered !== type >= FIRST_NUMBERED_TYPE) {
      throw this.#fault(`a frame of type ${type} ${isNumbered ? "has a" : "has no"} number`);
    }
    if (view.getBigUint64(8, true) > BigInt(Number.MAX_SAFE_INTEGER))
      throw this.#fault("its number is too large");
    const whole = new Uint8Array(FRAME_OVERHEAD_BYTES + payloadBytes);
    whole.set(this.#head);
    this.#body = whole;
  }

  #finish(whole: Uint8Array): Frame {
    const view = new DataView(whole.buffer);
    const end = whole.length - 8;
    if (view.getBigUint64(end, true) !== xxh3(whole.subarray(0, end))) {
      throw this.#fault("a frame's checksum does not hold");
    }
    this.#offset += whole.length;
    this.#body = undefined;
    this.#have = 0;
    return {
      type: view.getUint8(0),
      flags: view.getUint8(1),
      stream: view.getUint16(2, true),
      sequence: Number(view.getBigUint64(8, true)),
      payload: whole.subarray(FRAME_HEAD_BYTES, end),
      checksum: whole.subarray(end),
    };
  }

  #fault(message: string): FormatError {
    return new FormatError(message, "live connection", this.#offset);
  }
}
