import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { FOOTER_BYTES, RAM_FLAG, SECTION, TARGET_PAGE_BYTES } from "./stream-format.ts";
import type { ParsedStream } from "./stream-parser.ts";

/** A range of a memory block, whole pages: at most 1 MiB of bytes, or zeros of any length. */
export type RamPiece =
  | { readonly offset: number; readonly sizeBytes: number; readonly bytes: Uint8Array }
  | { readonly offset: number; readonly sizeBytes: number };

const WORD_BYTES = 8;
const HEAD_BYTES = 5;
const PAGES_PER_SECTION = MAX_SNAPSHOT_FRAME_BYTES / TARGET_PAGE_BYTES;
/** A zero page costs 9 bytes, so that far more of them fit in the same buffer. */
const ZERO_PAGES_PER_SECTION = 65536;
const MAX_NAME_BYTES = 256;
const BUFFER_BYTES =
  HEAD_BYTES +
  MAX_NAME_BYTES +
  PAGES_PER_SECTION * (WORD_BYTES + TARGET_PAGE_BYTES) +
  WORD_BYTES +
  FOOTER_BYTES;

/**
 * The stream that QEMU takes: what is not memory byte for byte, the pages before the end of the memory's section. Zeros
 * are sent too, for blocks that hold something in a new QEMU (firmware, option ROMs).
 *
 * @param memory The pieces of a block, by its place in `parsed.blocks`.
 * @returns pieces of the stream, each valid until the next
 */
export function* rebuildStream(
  parsed: ParsedStream,
  memory: (block: number) => Iterable<RamPiece>,
): Generator<Uint8Array, void> {
  yield parsed.rest.subarray(0, parsed.pagesOffset);
  const writer = new RamSectionWriter(parsed.ramSectionId);
  for (const [number, block] of parsed.blocks.entries()) {
    for (const piece of memory(number)) {
      const isZero = !("bytes" in piece);
      const most = (isZero ? ZERO_PAGES_PER_SECTION : PAGES_PER_SECTION) * TARGET_PAGE_BYTES;
      for (let at = 0; at < piece.sizeBytes; at += most) {
        const sizeBytes = Math.min(most, piece.sizeBytes - at);
        const offset = piece.offset + at;
        if (isZero) yield writer.zeros(block.name, offset, sizeBytes);
        else yield writer.pages(block.name, offset, piece.bytes.subarray(at, at + sizeBytes));
      }
    }
  }
  yield parsed.rest.subarray(parsed.pagesOffset);
}

/** One PART section of memory in a buffer that is used again. */
export class RamSectionWriter {
  readonly #bytes = new Uint8Array(BUFFER_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #sectionId: number;
  #at = 0;

  constructor(sectionId: number) {
    this.#sectionId = sectionId;
  }

  pages(name: string, offset: number, bytes: Uint8Array): Uint8Array {
    this.#begin();
    for (let at = 0; at < bytes.length; at += TARGET_PAGE_BYTES) {
      this.#page(RAM_FLAG.page, offset + at, at === 0 ? name : undefined);
      this.#bytes.set(bytes.subarray(at, at + TARGET_PAGE_BYTES), this.#at);
      this.#at += TARGET_PAGE_BYTES;
    }
    return this.#end();
  }

  zeros(name: string, offset: number, sizeBytes: number): Uint8Array {
    this.#begin();
    for (let at = 0; at < sizeBytes; at += TARGET_PAGE_BYTES) {
      this.#page(RAM_FLAG.zero, offset + at, at === 0 ? name : undefined);
      this.#bytes[this.#at++] = 0;
    }
    return this.#end();
  }

  #begin(): void {
    this.#at = 0;
    this.#bytes[this.#at++] = SECTION.part;
    this.#u32(this.#sectionId);
  }

  #end(): Uint8Array {
    this.#u32(0);
    this.#u32(RAM_FLAG.endOfSection);
    this.#bytes[this.#at++] = SECTION.footer;
    this.#u32(this.#sectionId);
    return this.#bytes.subarray(0, this.#at);
  }

  #page(flag: number, address: number, name: string | undefined): void {
    this.#u32(Math.floor(address / 2 ** 32));
    this.#u32((address % 2 ** 32) | flag | (name === undefined ? RAM_FLAG.sameBlock : 0));
    if (name === undefined) return;
    const { written } = new TextEncoder().encodeInto(name, this.#bytes.subarray(this.#at + 1));
    this.#bytes[this.#at] = written;
    this.#at += 1 + written;
  }

  #u32(value: number): void {
    this.#view.setUint32(this.#at, value);
    this.#at += 4;
  }
}
