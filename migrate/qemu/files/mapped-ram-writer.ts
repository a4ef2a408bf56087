import { ftruncateSync, writeSync } from "node:fs";
import { FormatError } from "../../../src/errors.ts";
import type { MoveOptions } from "../../driver.ts";
import { type SnapshotReader, systemCall } from "../../snapshot/mod.ts";
import type { StreamOutline } from "../decode/stream-outline.ts";
import { SECTION, TARGET_PAGE_BYTES } from "../stream-format.ts";
import type { ParsedStream } from "../stream-parser.ts";
import { bitmapBytes, MAPPED_RAM, type MappedBlock } from "./mapped-ram-head.ts";
import { ramStart } from "./mapped-ram-reader.ts";
import { be32, be64, endOfSection, text8 } from "./stream-bytes.ts";

/** START's type, id, name, instance, version, and the size of all blocks with its flag. */
const RAM_HEAD_BYTES = 1 + 4 + 4 + 4 + 4 + 8;
/**
 * QEMU leaves pages alone that the file does not hold. A new QEMU's memory is zeros, but its firmware is not: smaller blocks
 * (ROMs, ACPI tables, video memory) are held whole.
 */
const SPARSE_BLOCK_BYTES = 64 << 20;

/** Writes a mapped-ram file: the pages of each block at a fixed place, loaded in parallel; zeros are holes. */
export class MappedRamWriter {
  readonly #fd: number;
  readonly #path: string;
  #at = 0;

  constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /** @param regions Of each block, its memory region in the snapshot. @throws FormatError, SyscallError */
  async write(
    parsed: ParsedStream & { readonly outline: StreamOutline },
    reader: SnapshotReader,
    regions: readonly number[],
    options: MoveOptions,
  ): Promise<void> {
    const { rest, outline, blocks, ramSectionId } = parsed;
    const start = ramStart(ramSectionId, blocks);
    const { sectionsOffset } = outline;
    if (Buffer.compare(start, rest.subarray(sectionsOffset, sectionsOffset + start.length)) !== 0) {
      throw new FormatError("the memory's section is of another form", "QEMU stream", sectionsOffset);
    }
    this.#append(configured(rest, outline));
    this.#append(start.subarray(0, RAM_HEAD_BYTES));
    const totalBytes = blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    let doneBytes = 0;
    for (const [index, block] of blocks.entries()) {
      const mapped = this.#begin(block);
      const regionId = regions[index] as number;
      this.#writeBitmap(mapped, reader, regionId);
      const base = doneBytes;
      await reader.loadRegion(regionId, this.#fd, {
        signal: options.signal,
        targetOffset: mapped.pagesOffset,
        onProgress: (done) => options.onProgress?.({ phase: "memory", done: base + done, total: totalBytes }),
      });
      doneBytes += block.sizeBytes;
      this.#at = mapped.pagesOffset + block.sizeBytes;
    }
    this.#append(endOfSection(ramSectionId));
    this.#append(rest.subarray(sectionsOffset + start.length));
    systemCall("ftruncate", this.#path, () => ftruncateSync(this.#fd, this.#at));
  }

  #begin({ name, sizeBytes }: { readonly name: string; readonly sizeBytes: number }): MappedBlock {
    this.#append(Buffer.concat([text8(name), be64(sizeBytes)]));
    const bitmapOffset = this.#at + MAPPED_RAM.headerBytes;
    const pagesOffset =
      Math.ceil((bitmapOffset + bitmapBytes(sizeBytes)) / MAPPED_RAM.alignmentBytes) *
      MAPPED_RAM.alignmentBytes;
    const offsets = [be64(TARGET_PAGE_BYTES), be64(bitmapOffset), be64(pagesOffset)];
    this.#append(Buffer.concat([be32(MAPPED_RAM.version), ...offsets]));
    return { name, sizeBytes, bitmapOffset, pagesOffset };
  }

  #writeBitmap({ sizeBytes, bitmapOffset }: MappedBlock, reader: SnapshotReader, regionId: number): void {
    const bitmap = new Uint8Array(bitmapBytes(sizeBytes));
    const isSparse = sizeBytes >= SPARSE_BLOCK_BYTES;
    const held = isSparse
      ? reader.resolvedExtents(regionId).filter(({ frame }) => frame !== undefined)
      : [{ offset: 0, sizeBytes }];
    for (const extent of held) {
      const end = (extent.offset + extent.sizeBytes) / TARGET_PAGE_BYTES;
      for (let page = extent.offset / TARGET_PAGE_BYTES; page < end; page += 1)
        bitmap[page >>> 3]! |= 1 << (page & 7);
    }
    this.#writeAt(bitmap, bitmapOffset);
  }

  #append(bytes: Uint8Array): void {
    this.#writeAt(bytes, this.#at);
    this.#at += bytes.length;
  }

  #writeAt(bytes: Uint8Array, offset: number): void {
    for (let done = 0; done < bytes.length; ) {
      done += systemCall("pwrite", this.#path, () =>
        writeSync(this.#fd, bytes, done, bytes.length - done, offset + done),
      );
    }
  }
}

/** The configuration, with the mark that the reader must take mapped-ram, before the UUID as QEMU has it. */
function configured(rest: Uint8Array, { configuration, sectionsOffset }: StreamOutline): Uint8Array {
  const uuid = configuration.find(({ name }) => name === "configuration/uuid");
  const last = configuration.at(-1);
  const at = uuid?.offset ?? (last === undefined ? 8 : last.offset + last.sizeBytes);
  const capability = Buffer.concat([
    ...[Buffer.of(SECTION.subsection), text8("configuration/capabilities"), be32(1)],
    ...[be32(1), text8("mapped-ram")],
  ]);
  return Buffer.concat([rest.subarray(0, at), capability, rest.subarray(at, sectionsOffset)]);
}
