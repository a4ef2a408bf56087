/**
 * The head of an ELF core file (System V ABI, chapters 4 and 5) whose segments are a machine's memory regions, by their guest
 * addresses. crash wants notes in front of them, and gdb a thread in these: there is one, with its registers zero.
 */
import type { SnapshotRegion } from "./manifest.ts";

const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const ALIGNMENT = 4096;
const ET_CORE = 4;
const PT_LOAD = 1;
const PT_NOTE = 4;
const NT_PRSTATUS = 1;
const NOTE_NAME = new TextEncoder().encode("CORE\0\0\0\0");
/** struct elf_prstatus (include/linux/elfcore.h). */
const PRSTATUS_BYTES: Readonly<Record<string, number>> = { x64: 336, arm64: 392 };
const READ_WRITE_EXECUTE = 7;
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };

/** @returns the head, and where in the file each region's bytes go, by its id */
export function coreFileHead(
  regions: readonly SnapshotRegion[],
  architecture: string,
): { readonly head: Uint8Array; readonly offsets: ReadonlyMap<number, number> } {
  const note = threadNote(architecture);
  const tableEnd = ELF_HEADER_BYTES + (regions.length + 1) * PROGRAM_HEADER_BYTES;
  const head = new Uint8Array(Math.ceil((tableEnd + note.length) / ALIGNMENT) * ALIGNMENT);
  const view = new DataView(head.buffer);
  // 64 bits, little-endian, version 1.
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, ET_CORE, true);
  view.setUint16(18, MACHINES[architecture] ?? 0, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(32, BigInt(ELF_HEADER_BYTES), true);
  view.setUint16(52, ELF_HEADER_BYTES, true);
  view.setUint16(54, PROGRAM_HEADER_BYTES, true);
  view.setUint16(56, regions.length + 1, true);
  head.set(note, tableEnd);
  setProgramHeader(view, 0, PT_NOTE, 0, [tableEnd, 0, 0, note.length, 0, 4]);
  const offsets = new Map<number, number>();
  let position = head.length;
  for (const [index, { id, guestAddress, sizeBytes }] of regions.entries()) {
    const fields = [position, guestAddress, guestAddress, sizeBytes, sizeBytes, ALIGNMENT];
    setProgramHeader(view, index + 1, PT_LOAD, READ_WRITE_EXECUTE, fields);
    offsets.set(id, position);
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

/** u32 size of the name, u32 size of the content, u32 type; name; content. */
function threadNote(architecture: string): Uint8Array {
  const contentBytes = PRSTATUS_BYTES[architecture] ?? 0;
  if (contentBytes === 0) return new Uint8Array(0);
  const note = new Uint8Array(12 + NOTE_NAME.length + contentBytes);
  const view = new DataView(note.buffer);
  view.setUint32(0, 5, true);
  view.setUint32(4, contentBytes, true);
  view.setUint32(8, NT_PRSTATUS, true);
  note.set(NOTE_NAME, 12);
  return note;
}
