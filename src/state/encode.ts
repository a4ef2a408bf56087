import { UsageError } from "../errors.ts";
import {
  MAX_STATE_NAME_BYTES,
  MAX_STATE_SECTION_BYTES,
  MAX_STATE_SECTIONS,
  STATE_CHUNK_BYTES,
} from "../limits.ts";
import {
  blockChecksum,
  STATE_BLOCK_HEAD_BYTES,
  STATE_CHECKSUM_BYTES,
  STATE_FRAME_VERSION,
  STATE_MAGIC,
  STATE_PREAMBLE_BYTES,
  StateBlock,
  type StateHeader,
} from "./frame.ts";
import { packHeader } from "./header.ts";
import { packValue } from "./msgpack.ts";
import { xxh3 } from "./xxh3.ts";

/** One section: a small value, or a stream of bytes of any length. */
export type StateSection =
  | { readonly name: string; readonly value: unknown }
  | { readonly name: string; readonly bytes: Iterable<Uint8Array> };

/**
 * A device state as the bytes that go into the pipe, pulled lazily: the memory in use is that of one chunk. A yielded
 * array may be a view of the caller's bytes and is valid until the next one is pulled.
 *
 * @throws UsageError for a name that is empty, too long or used twice, or a value that msgpack does not carry.
 * @example
 * for (const chunk of encodeState(header, [{ name: "config", value: { readOnly: true } }])) pipe.write(chunk);
 */
export function* encodeState(
  header: StateHeader,
  sections: Iterable<StateSection>,
): Generator<Uint8Array, void> {
  const encoder = new BlockEncoder();
  yield encoder.preamble(packHeader(header));
  const names = new Set<string>();
  for (const section of sections) {
    const name = sectionName(section.name, names);
    if ("bytes" in section) yield* bytesSection(encoder, name, section.bytes);
    else yield* encoder.block(StateBlock.value, valuePayload(name, packValue(section.value, section.name)));
  }
  yield* encoder.end(names.size);
}

function* bytesSection(
  encoder: BlockEncoder,
  name: Uint8Array,
  bytes: Iterable<Uint8Array>,
): Generator<Uint8Array> {
  yield* encoder.block(StateBlock.bytesBegin, name);
  let total = 0;
  for (const piece of bytes) {
    for (let at = 0; at < piece.length; at += STATE_CHUNK_BYTES) {
      yield* encoder.block(StateBlock.bytesChunk, piece.subarray(at, at + STATE_CHUNK_BYTES));
    }
    total += piece.length;
  }
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(total), true);
  yield* encoder.block(StateBlock.bytesEnd, length);
}

/** Keeps the chain of checksums and the offset. */
class BlockEncoder {
  #checksum = 0n;
  #offset = 0;

  preamble(header: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(STATE_PREAMBLE_BYTES + header.length + STATE_CHECKSUM_BYTES);
    const view = new DataView(bytes.buffer);
    bytes.set(STATE_MAGIC);
    view.setUint32(8, STATE_FRAME_VERSION, true);
    view.setUint32(12, header.length, true);
    bytes.set(header, STATE_PREAMBLE_BYTES);
    const covered = STATE_PREAMBLE_BYTES + header.length;
    this.#checksum = xxh3(bytes.subarray(0, covered));
    view.setBigUint64(covered, this.#checksum, true);
    this.#offset = bytes.length;
    return bytes;
  }

  *block(kind: number, payload: Uint8Array): Generator<Uint8Array> {
    const head = new Uint8Array(STATE_BLOCK_HEAD_BYTES);
    const view = new DataView(head.buffer);
    head[0] = kind;
    view.setUint32(4, payload.length, true);
    this.#checksum = blockChecksum(head, this.#checksum, payload);
    this.#offset += STATE_BLOCK_HEAD_BYTES + payload.length + STATE_CHECKSUM_BYTES;
    yield head;
    if (payload.length > 0) yield payload;
    const tail = new Uint8Array(STATE_CHECKSUM_BYTES);
    new DataView(tail.buffer).setBigUint64(0, this.#checksum, true);
    yield tail;
  }

  *end(sections: number): Generator<Uint8Array> {
    const payload = new Uint8Array(16);
    const view = new DataView(payload.buffer);
    view.setUint32(0, sections, true);
    view.setBigUint64(8, BigInt(this.#offset), true);
    yield* this.block(StateBlock.end, payload);
  }
}

function sectionName(name: string, names: Set<string>): Uint8Array {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > MAX_STATE_NAME_BYTES) {
    throw new UsageError(`a section name has 1 to ${MAX_STATE_NAME_BYTES} bytes, not ${bytes.length}`);
  }
  if (names.has(name)) throw new UsageError(`the section "${name}" was given twice`);
  if (names.size >= MAX_STATE_SECTIONS)
    throw new UsageError(`a state has at most ${MAX_STATE_SECTIONS} sections`);
  names.add(name);
  return bytes;
}

function valuePayload(name: Uint8Array, value: Uint8Array): Uint8Array {
  const payload = new Uint8Array(2 + name.length + value.length);
  if (payload.length > MAX_STATE_SECTION_BYTES) {
    throw new UsageError(`a value of ${value.length} bytes is too large: give it as a bytes section`);
  }
  new DataView(payload.buffer).setUint16(0, name.length, true);
  payload.set(name, 2);
  payload.set(value, 2 + name.length);
  return payload;
}
