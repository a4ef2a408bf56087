import { FormatError } from "../errors.ts";
import {
  MAX_DEVICE_STATE_BYTES,
  MAX_STATE_HEADER_BYTES,
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
import { unpackHeader } from "./header.ts";
import { unpackValue } from "./msgpack.ts";
import { PieceReader } from "./piece-reader.ts";
import { xxh3 } from "./xxh3.ts";

/** Where a decoder puts what it has read. Whatever a method throws ends the decoding with that error. */
export interface StateSink {
  header(header: StateHeader): void;
  value(name: string, value: unknown): void;
  /** A piece of a bytes section, at most 1 MiB, valid during the call only. */
  bytes(name: string, chunk: Uint8Array): void;
  /** A bytes section is complete (it may have had no chunk at all). */
  bytesEnd?(name: string, sizeBytes: number): void;
}

export interface StateLimits {
  /** All bytes of the stream; 64 GiB unless told. */
  readonly maxBytes?: number;
  /** One value section; 64 MiB unless told. */
  readonly maxSectionBytes?: number;
}

type Expectation = "preamble" | "header" | "head" | "body" | "nothing";

/**
 * Reads a framed device state as it arrives, in pieces of any size, holding one chunk in memory. Each piece is delivered
 * after its own checksum held, but the state as a whole is only good once `end()` has returned: stage what the
 * sink gets, and apply it then.
 *
 * @example
 * const decoder = new StateDecoder(sink);
 * for (const chunk of chunks) decoder.write(chunk);
 * decoder.end();
 */
export class StateDecoder {
  readonly #sink: StateSink;
  readonly #maxBytes: number;
  readonly #maxSectionBytes: number;
  readonly #pieces = new PieceReader();
  readonly #names = new Set<string>();
  readonly #head = new Uint8Array(STATE_BLOCK_HEAD_BYTES);
  readonly #preamble = new Uint8Array(STATE_PREAMBLE_BYTES);
  #expected: Expectation = "preamble";
  #checksum = 0n;
  #length = 0;
  #total = 0;
  #openName: string | undefined;
  #openBytes = 0;
  #failure: unknown;

  constructor(sink: StateSink, limits: StateLimits = {}) {
    this.#sink = sink;
    this.#maxBytes = limits.maxBytes ?? MAX_DEVICE_STATE_BYTES;
    this.#maxSectionBytes = limits.maxSectionBytes ?? MAX_STATE_SECTION_BYTES;
    this.#pieces.expect(STATE_PREAMBLE_BYTES);
  }

  /** @throws FormatError with the section and the offset; every later call throws the same. */
  write(chunk: Uint8Array): void {
    this.#guard(() => {
      this.#total += chunk.length;
      if (this.#total > this.#maxBytes) {
        this.#fail(`the state is larger than the limit of ${this.#maxBytes} bytes`, this.#maxBytes);
      }
      let rest = chunk;
      while (rest.length > 0) {
        if (this.#expected === "nothing") this.#fail("bytes follow the end of the state");
        rest = this.#pieces.feed(rest, (piece) => this.#step(piece));
      }
    });
  }

  /** The input is over. @throws FormatError if the state is not complete. */
  end(): void {
    this.#guard(() => {
      if (this.#expected !== "nothing") {
        const at = this.#pieces.offset + this.#pieces.held;
        this.#fail(`the state ends early, ${this.#pieces.missing} more bytes were expected`, at);
      }
    });
  }

  #guard(action: () => void): void {
    if (this.#failure !== undefined) throw this.#failure;
    try {
      action();
    } catch (error) {
      this.#failure = error;
      throw error;
    }
  }

  #step(piece: Uint8Array): void {
    if (this.#expected === "preamble") this.#readPreamble(piece);
    else if (this.#expected === "header") this.#readHeader(piece);
    else if (this.#expected === "head") this.#readHead(piece);
    else this.#readBody(piece);
  }

  #readPreamble(piece: Uint8Array): void {
    const view = viewOf(piece);
    if (!STATE_MAGIC.every((byte, index) => byte === piece[index]))
      this.#fail("this is not a vhu device state");
    const frameVersion = view.getUint32(8, true);
    if (frameVersion !== STATE_FRAME_VERSION) {
      this.#fail(`frame version ${frameVersion} is not known (this reader knows ${STATE_FRAME_VERSION})`, 8);
    }
    this.#length = view.getUint32(12, true);
    if (this.#length > MAX_STATE_HEADER_BYTES)
      this.#fail(`a header of ${this.#length} bytes is above the limit`, 12);
    this.#preamble.set(piece);
    this.#expect("header", this.#length + STATE_CHECKSUM_BYTES);
  }

  #readHeader(piece: Uint8Array): void {
    const covered = new Uint8Array(STATE_PREAMBLE_BYTES + this.#length);
    covered.set(this.#preamble);
    covered.set(piece.subarray(0, this.#length), STATE_PREAMBLE_BYTES);
    this.#checksum = xxh3(covered);
    if (viewOf(piece).getBigUint64(this.#length, true) !== this.#checksum)
      this.#fail("the checksum does not match");
    this.#sink.header(unpackHeader(covered.subarray(STATE_PREAMBLE_BYTES), STATE_PREAMBLE_BYTES));
    this.#expect("head", STATE_BLOCK_HEAD_BYTES);
  }

  #readHead(piece: Uint8Array): void {
    this.#head.set(piece);
    this.#length = viewOf(piece).getUint32(4, true);
    const [least, most] = this.#lengthsOf(piece[0] as number);
    if (this.#length < least || this.#length > most) {
      this.#fail(`a length of ${this.#length} is outside ${least}…${most}`, this.#pieces.offset + 4);
    }
    if (piece[1] !== 0 || piece[2] !== 0 || piece[3] !== 0) this.#fail("reserved bytes are not zero");
    this.#expect("body", this.#length + STATE_CHECKSUM_BYTES);
  }

  /** What a block of this kind may have as its length, here and now. */
  #lengthsOf(kind: number): readonly [number, number] {
    const isOpen = this.#openName !== undefined;
    if (kind === StateBlock.bytesChunk && isOpen) return [1, STATE_CHUNK_BYTES];
    if (kind === StateBlock.bytesEnd && isOpen) return [8, 8];
    if (kind === StateBlock.value && !isOpen) return [4, this.#maxSectionBytes];
    if (kind === StateBlock.bytesBegin && !isOpen) return [1, MAX_STATE_NAME_BYTES];
    if (kind === StateBlock.end && !isOpen) return [16, 16];
    return this.#fail(`a block of kind ${kind} does not belong here`);
  }

  #readBody(piece: Uint8Array): void {
    const payload = piece.subarray(0, this.#length);
    this.#checksum = blockChecksum(this.#head, this.#checksum, payload);
    if (viewOf(piece).getBigUint64(this.#length, true) !== this.#checksum)
      this.#fail("the checksum does not match");
    // After the end block a further head is never read, see write().
    this.#expect("head", STATE_BLOCK_HEAD_BYTES);
    const kind = this.#head[0];
    if (kind === StateBlock.value) this.#readValue(payload);
    else if (kind === StateBlock.bytesBegin) this.#openName = this.#name(payload);
    else if (kind === StateBlock.bytesChunk) this.#readChunk(payload);
    else if (kind === StateBlock.bytesEnd) this.#readBytesEnd(payload);
    else this.#readEnd(payload);
  }

  #readValue(payload: Uint8Array): void {
    const nameLength = viewOf(payload).getUint16(0, true);
    if (nameLength === 0 || nameLength > Math.min(MAX_STATE_NAME_BYTES, payload.length - 3)) {
      this.#fail(`a name of ${nameLength} bytes does not fit`);
    }
    const name = this.#name(payload.subarray(2, 2 + nameLength));
    // A copy, because binary values are views of it and the piece is used again. (A Buffer's slice is no copy.)
    const value = new Uint8Array(payload.subarray(2 + nameLength));
    this.#sink.value(
      name,
      unpackValue(value, `state section ${JSON.stringify(name)}`, this.#pieces.offset + 2 + nameLength),
    );
  }

  #readChunk(payload: Uint8Array): void {
    this.#openBytes += payload.length;
    this.#sink.bytes(this.#openName as string, payload);
  }

  #readBytesEnd(payload: Uint8Array): void {
    const name = this.#openName as string;
    const sizeBytes = this.#openBytes;
    if (viewOf(payload).getBigUint64(0, true) !== BigInt(sizeBytes))
      this.#fail("the section's length does not match");
    this.#openName = undefined;
    this.#openBytes = 0;
    this.#sink.bytesEnd?.(name, sizeBytes);
  }

  #readEnd(payload: Uint8Array): void {
    const view = viewOf(payload);
    if (view.getUint32(0, true) !== this.#names.size) this.#fail("the number of sections does not match");
    const start = this.#pieces.offset - STATE_BLOCK_HEAD_BYTES;
    if (view.getUint32(4, true) !== 0 || view.getBigUint64(8, true) !== BigInt(start)) {
      this.#fail("the end block does not stand where it says");
    }
    this.#expected = "nothing";
  }

  #name(bytes: Uint8Array): string {
    let name: string;
    try {
      name = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return this.#fail("a section name is not UTF-8");
    }
    if (this.#names.has(name)) this.#fail(`the section ${JSON.stringify(name)} is there twice`);
    if (this.#names.size >= MAX_STATE_SECTIONS) this.#fail(`more than ${MAX_STATE_SECTIONS} sections`);
    this.#names.add(name);
    return name;
  }

  #expect(what: Expectation, length: number): void {
    this.#expected = what;
    this.#pieces.expect(length);
  }

  #fail(message: string, offset = this.#pieces.offset): never {
    const section =
      this.#openName !== undefined
        ? `state section ${JSON.stringify(this.#openName)}`
        : this.#expected === "preamble" || this.#expected === "header"
          ? "state header"
          : `state section ${this.#names.size + 1}`;
    throw new FormatError(message, section, offset);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
