/**
 * The head of an ELF core file (System V ABI, chapters 4 and 5): notes about the processors, and segments that are a machine's
 * memory by its guest-physical addresses.
 */
import { threadNote } from "./core-note.ts";
import type { SnapshotRegion } from "./manifest.ts";

const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const ALIGNMENT = 4096;
const ET_CORE = 4;
const PT_LOAD = 1;
const PT_NOTE = 4;
const READ_WRITE_EXECUTE = 7;
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };

/** A part of a region, where the guest has it. */
export interface CoreSegment {
  readonly regionId: number;
  /** From the start of the region. */
  readonly offset: number;
  readonly guestAddress: number;
  readonly sizeBytes: number;
}

/** What a core file is made of beside the bytes of memory. */
export interface CoreLayout {
  /** Those of one region follow each other, and cover it from its start. */
  readonly segments: readonly CoreSegment[];
  /** One after the other, as `coreNote` makes them; gdb wants a thread in them. */
  readonly notes: Uint8Array;
}

/** Of a machine whose regions say where they are, and whose registers are not known: one thread, its registers zero. */
export function plainCoreLayout(regions: readonly SnapshotRegion[], architecture: string): CoreLayout {
  const segments = regions.map(({ id, guestAddress, sizeBytes }) => {
    return { regionId: id, offset: 0, guestAddress, sizeBytes };
  });
  return { segments, notes: threadNote(architecture) };
}

/** @returns the head, and where in the file each region's bytes go, by its id; all in the order of the segments */
export function coreFileHead(
  { segments, notes }: CoreLayout,
  architecture: string,
): { readonly head: Uint8Array; readonly offsets: ReadonlyMap<number, number> } {
  const tableEnd = ELF_HEADER_BYTES + (segments.length + 1) * PROGRAM_HEADER_BYTES;
  const head = new Uint8Array(Math.ceil((tableEnd + notes.length) / ALIGNMENT) * ALIGNMENT);
  const view = new DataView(head.buffer);
  // 64 bits, little-endian, version 1.
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, ET_CORE, true);
  view.setUint16(18, MACHINES[architecture] ?? 0, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(32, BigInt(ELF_HEADER_BYTES), true);
  view.setUint16(52, ELF_HEADER_BYTES, true);
  view.setUint16(54, PROGRAM_HEADER_BYTES, true);
  view.setUint16(56, segments.length + 1, true);
  head.set(notes, tableEnd);
  setProgramHeader(view, 0, PT_NOTE, 0, [tableEnd, 0, 0, notes.length, 0, 4]);
  const offsets = new Map<number, number>();
  let position = head.length;
  for (const [index, { regionId, guestAddress, sizeBytes }] of segments.entries()) {
    const fields = [position, guestAddress, guestAddress, sizeBytes, sizeBytes, ALIGNMENT];
    setProgramHeader(view, index + 1, PT_LOAD, READ_WRITE_EXECUTE, fields);
    if (!offsets.has(regionId)) offsets.set(regionId, position);
    position += sizeBytes;
  }
  return { head, offsets };
}

/** @param fields Offset in the file, virtual and physical address, size in the file and in memory, alignment. */
function setProgramHeader(
  view: DataView,
  index: number,
  type: number,
  flags: number,
  fields: readonly number[],
): void {
  const at = ELF_HEADER_BYTES + index * PROGRAM_HEADER_BYTES;
  view.setUint32(at, type, true);
  view.setUint32(at + 4, flags, true);
  for (const [field, value] of fields.entries()) view.setBigUint64(at + 8 + 8 * field, BigInt(value), true);
}
