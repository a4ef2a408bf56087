import { FormatError } from "../../../src/errors.ts";
import {
  RAM_FLAG,
  RAM_SECTION_NAME,
  RAM_SECTION_VERSION,
  type RamBlock,
  SECTION,
  TARGET_PAGE_BYTES,
} from "../stream-format.ts";
import { RamSectionWriter } from "../stream-writer.ts";
import { bitmapBytes, type MappedBlock, type MappedRamHead } from "./mapped-ram-head.ts";
import { be32, be64, endOfSection, text8 } from "./stream-bytes.ts";

const PIECE_BYTES = 1 << 20;
/** A look at the bitmap: 2 GiB of memory. */
const BITMAP_PIECE_BYTES = 64 * 1024;

type Read = (offset: number, sizeBytes: number) => Uint8Array;

/**
 * A mapped-ram file as the sequential stream that QEMU would have written instead: the same devices, byte for byte, and
 * pages in the memory's section. Pages that the file does not hold are left out.
 *
 * @returns pieces, each valid until the next
 */
export function* sequentialOf(
  head: MappedRamHead,
  read: Read,
  fileBytes: number,
): Generator<Uint8Array, void> {
  yield head.start;
  yield ramStart(head.ramSectionId, head.blocks);
  const writer = new RamSectionWriter(head.ramSectionId);
  for (const block of head.blocks) {
    for (const { first, count } of runsOf(block, read)) {
      for (let page = first; page < first + count; page += PIECE_BYTES / TARGET_PAGE_BYTES) {
        const pages = Math.min(PIECE_BYTES / TARGET_PAGE_BYTES, first + count - page);
        const offset = page * TARGET_PAGE_BYTES;
        yield writer.pages(block.name, offset, read(block.pagesOffset + offset, pages * TARGET_PAGE_BYTES));
      }
    }
  }
  // The end of the section that announced the blocks stands behind the last one's pages.
  const end = endOfSection(head.ramSectionId);
  if (Buffer.compare(read(head.restOffset, end.length), end) !== 0) {
    throw new FormatError("the section with the memory blocks has no end", "mapped-ram", head.restOffset);
  }
  for (let at = head.restOffset + end.length; at < fileBytes; at += PIECE_BYTES) {
    yield read(at, Math.min(PIECE_BYTES, fileBytes - at));
  }
}

/** A sequential stream's START section of memory: the blocks' names and sizes. */
export function ramStart(ramSectionId: number, blocks: readonly RamBlock[]): Uint8Array {
  const totalBytes = blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  return Buffer.concat([
    ...[
      Buffer.of(SECTION.start),
      be32(ramSectionId),
      text8(RAM_SECTION_NAME),
      be32(0),
      be32(RAM_SECTION_VERSION),
    ],
    be64(totalBytes + RAM_FLAG.memSize),
    ...blocks.flatMap((block) => [text8(block.name), be64(block.sizeBytes)]),
    endOfSection(ramSectionId),
  ]);
}

/** Runs of pages that the file holds. */
function* runsOf(block: MappedBlock, read: Read): Generator<{ first: number; count: number }, void> {
  const pages = block.sizeBytes / TARGET_PAGE_BYTES;
  const totalBytes = bitmapBytes(block.sizeBytes);
  for (let from = 0; from < totalBytes; from += BITMAP_PIECE_BYTES) {
    const bitmap = read(block.bitmapOffset + from, Math.min(BITMAP_PIECE_BYTES, totalBytes - from)).slice();
    const base = from * 8;
    const count = Math.min(bitmap.length * 8, pages - base);
    for (let page = 0; page < count; page += 1) {
      if (!isSet(bitmap, page)) continue;
      const first = page;
      while (page < count && isSet(bitmap, page)) page += 1;
      yield { first: base + first, count: page - first };
    }
  }
}

function isSet(bitmap: Uint8Array, bit: number): boolean {
  return ((bitmap[bit >>> 3] as number) & (1 << (bit & 7))) !== 0;
}
