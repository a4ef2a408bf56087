import { type StreamModel, streamParts, text8, u8, u32, u64 } from "./qemu-stream.ts";

const PAGE = 4096;
const ALIGNMENT = 1 << 20;

export interface MappedOptions {
  /** Names in "configuration/capabilities". */
  readonly capabilities?: readonly string[];
  /** Behind something else in the file, e.g. libvirt's head. */
  readonly base?: number;
  /** A block's header, instead of the right one. */
  readonly header?: (right: { bitmapOffset: number; pagesOffset: number }) => Uint8Array;
}

/** The header of a block in a mapped-ram file (QEMU migration/ram.h). */
export const mappedHeader = (bitmapOffset: number, pagesOffset: number, version = 1, pageBytes = PAGE) =>
  Buffer.concat([u32(version), u64(pageBytes), u64(bitmapOffset), u64(pagesOffset)]);

/** A mapped-ram file by its grammar, of the last content of each page. Without what stands in front of it. */
export function mappedStreamOf(model: StreamModel, options: MappedOptions = {}): Buffer {
  const { capabilities = ["mapped-ram"], base = 0, header = mappedHeaderOf } = options;
  const { header: magic, configuration, start, devices, end } = streamParts({ ...model, passes: [[]] });
  const demanded = Buffer.concat([
    ...[u8(5), text8("configuration/capabilities"), u32(1), u32(capabilities.length)],
    ...capabilities.map(text8),
  ]);
  const total = model.blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let file = Buffer.concat([
    magic,
    configuration,
    demanded,
    u8(1),
    u32(2),
    text8("ram"),
    u32(0),
    u32(4),
    u64(total | 4),
  ]);
  for (const [index, { name, sizeBytes }] of model.blocks.entries()) {
    file = Buffer.concat([file, text8(name), u64(sizeBytes)]);
    const bitmap = new Uint8Array(Math.ceil(sizeBytes / PAGE / 64) * 8);
    const pages = Buffer.alloc(sizeBytes);
    for (const page of model.passes.flat()) {
      if (page.block !== index) continue;
      pages.fill(0, page.offset, page.offset + PAGE);
      if (page.bytes !== undefined) pages.set(page.bytes, page.offset);
      const bit = page.offset / PAGE;
      bitmap[bit >> 3]! |= 1 << (bit & 7);
    }
    const bitmapOffset = base + file.length + 28;
    const pagesOffset = Math.ceil((bitmapOffset + bitmap.length) / ALIGNMENT) * ALIGNMENT;
    file = Buffer.concat([file, header({ bitmapOffset, pagesOffset }), bitmap]);
    file = Buffer.concat([file, Buffer.alloc(pagesOffset - base - file.length), pages]);
  }
  const tail = start.subarray(start.length - 13);
  const empty = Buffer.concat([u8(3), u32(2), tail]);
  return Buffer.concat([file, tail, empty, ...devices, end]);
}

function mappedHeaderOf({
  bitmapOffset,
  pagesOffset,
}: {
  bitmapOffset: number;
  pagesOffset: number;
}): Buffer {
  return mappedHeader(bitmapOffset, pagesOffset);
}
