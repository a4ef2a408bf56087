import { CompatibilityError, FormatError } from "../../../src/errors.ts";
import { MAX_MEM_SLOTS, MAX_SNAPSHOT_REGION_BYTES } from "../../../src/limits.ts";
import { capabilityNames, readOutline } from "../decode/stream-outline.ts";
import {
  RAM_FLAG,
  RAM_SECTION_NAME,
  RAM_SECTION_VERSION,
  type RamBlock,
  SECTION,
  TARGET_PAGE_BYTES,
} from "../stream-format.ts";
import { readString } from "../stream-string.ts";

/** QEMU's MappedRamHeader (migration/ram.h): be32 version, be64 page size, bitmap's offset, pages' offset; packed. */
export const MAPPED_RAM = { headerBytes: 28, version: 1, alignmentBytes: 1 << 20 } as const;
const MAX_NAME_BYTES = 255;
/** The outline is read from so many bytes: a machine type, capabilities and commands, each of some hundred. */
const OUTLINE_BYTES = 64 * 1024;

export interface MappedBlock extends RamBlock {
  /** Of a bit for each page, in the file: pages without one are zeros. */
  readonly bitmapOffset: number;
  /** Of the pages, in the file. */
  readonly pagesOffset: number;
}

/** What stands in a mapped-ram file before the first section's end: all but the pages and the devices. */
export interface MappedRamHead {
  /** Header, configuration without the capability, commands: as of a sequential stream. */
  readonly start: Uint8Array;
  readonly ramSectionId: number;
  readonly blocks: readonly MappedBlock[];
  /** Where the stream goes on after the last block's pages, in the file. */
  readonly restOffset: number;
}

type Read = (offset: number, sizeBytes: number) => Uint8Array;

/** Which capabilities a stream demands of its reader; none for one that is no stream at all. */
export function demandedCapabilities(start: Uint8Array): string[] {
  return capabilityNames(readOutline(start));
}

/**
 * @param base Where QEMU's stream begins in the file; the offsets inside it are the file's own.
 * @throws FormatError, CompatibilityError
 */
export function readMappedRamHead(read: Read, base: number, fileBytes: number): MappedRamHead {
  const available = Math.min(OUTLINE_BYTES, fileBytes - base);
  const bytes = read(base, available).slice();
  const outline = readOutline(bytes);
  const kept = [...outline.configuration, ...outline.commands]
    .filter((part) => !("name" in part) || part.name !== "configuration/capabilities")
    .map(({ offset, sizeBytes }) => bytes.subarray(offset, offset + sizeBytes));
  const cursor = new FileCursor(read, base + outline.sectionsOffset);
  const ramSectionId = readRamStart(cursor);
  const { high, low } = cursor.word();
  const flags = low & (TARGET_PAGE_BYTES - 1);
  if (flags !== RAM_FLAG.memSize) cursor.fail("the memory blocks are not where they belong");
  const totalBytes = high * 2 ** 32 + (low - flags);
  const blocks = readBlocks(cursor, totalBytes, fileBytes);
  return {
    start: Buffer.concat([bytes.subarray(0, 8), ...kept]),
    ramSectionId,
    blocks,
    restOffset: cursor.offset,
  };
}

function readRamStart(cursor: FileCursor): number {
  if (cursor.u8() !== SECTION.start) cursor.fail("the memory's section is not there");
  const id = cursor.u32();
  const name = cursor.string();
  const [, version] = [cursor.u32(), cursor.u32()];
  if (name !== RAM_SECTION_NAME) {
    throw new CompatibilityError(`the device "${name}" moves while the VM runs: that cannot be converted`);
  }
  if (version !== RAM_SECTION_VERSION) cursor.fail(`memory in version ${version}`);
  return id;
}

function readBlocks(cursor: FileCursor, totalBytes: number, fileBytes: number): MappedBlock[] {
  const blocks: MappedBlock[] = [];
  for (let sum = 0; sum < totalBytes; ) {
    const name = cursor.string();
    const sizeBytes = cursor.size();
    const isFit =
      sizeBytes > 0 && sizeBytes % TARGET_PAGE_BYTES === 0 && sizeBytes <= MAX_SNAPSHOT_REGION_BYTES;
    if (!isFit || blocks.length === MAX_MEM_SLOTS) cursor.fail(`a memory block of ${sizeBytes} bytes`);
    const version = cursor.u32();
    const [pageBytes, bitmapOffset, pagesOffset] = [cursor.size(), cursor.size(), cursor.size()];
    if (version !== MAPPED_RAM.version || pageBytes !== TARGET_PAGE_BYTES) {
      throw new CompatibilityError(
        `mapped-ram of version ${version} with pages of ${pageBytes} bytes is not known`,
      );
    }
    const bitmapEnd = bitmapOffset + bitmapBytes(sizeBytes);
    // Between the header and what follows, in this order: else two blocks could share one place.
    if (bitmapOffset < cursor.offset || pagesOffset < bitmapEnd || pagesOffset + sizeBytes > fileBytes) {
      cursor.fail(`the pages of the memory block ${JSON.stringify(name)} lie outside the file`);
    }
    blocks.push({ name, sizeBytes, bitmapOffset, pagesOffset });
    cursor.offset = pagesOffset + sizeBytes;
    sum += sizeBytes;
    if (sum > totalBytes) cursor.fail(`the memory blocks have ${sum} bytes, ${totalBytes} were announced`);
  }
  return blocks;
}

/** Whole words of 64 bits. */
export function bitmapBytes(sizeBytes: number): number {
  return Math.ceil(sizeBytes / TARGET_PAGE_BYTES / 64) * 8;
}

/** Reads values off a file, from some offset on. */
class FileCursor {
  readonly #read: Read;
  offset: number;

  constructor(read: Read, offset: number) {
    this.#read = read;
    this.offset = offset;
  }

  u8(): number {
    return this.#take(1).getUint8(0);
  }

  u32(): number {
    return this.#take(4).getUint32(0);
  }

  word(): { high: number; low: number } {
    return { high: this.u32(), low: this.u32() };
  }

  size(): number {
    const { high, low } = this.word();
    const value = high * 2 ** 32 + low;
    return Number.isSafeInteger(value) ? value : this.fail("an offset or a size is too large");
  }

  string(): string {
    const length = this.u8();
    const view = this.#take(Math.min(length, MAX_NAME_BYTES));
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    return readString(bytes, "a name", this.offset);
  }

  fail(what: string): never {
    throw new FormatError(what, "mapped-ram", this.offset);
  }

  #take(sizeBytes: number): DataView {
    const bytes = this.#read(this.offset, sizeBytes);
    this.offset += sizeBytes;
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
}
