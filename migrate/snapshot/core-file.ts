/** The head of an ELF core file (System V ABI, chapters 4 and 5) whose segments are a machine's memory regions. */
import type { SnapshotRegion } from "./manifest.ts";

const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const ALIGNMENT = 4096;
const ET_CORE = 4;
const PT_LOAD = 1;
const READ_WRITE_EXECUTE = 7;
const MACHINES: Readonly<Record<string, number>> = { x64: 62, arm64: 183 };

/** @returns the head, and where in the file each region's bytes go, by its id */
export function coreFileHead(
  regions: readonly SnapshotRegion[],
  architecture: string,
): { readonly head: Uint8Array; readonly offsets: ReadonlyMap<number, number> } {
  const tableEnd = ELF_HEADER_BYTES + regions.length * PROGRAM_HEADER_BYTES;
  const head = new Uint8Array(Math.ceil(tableEnd / ALIGNMENT) * ALIGNMENT);
  const view = new DataView(head.buffer);
  // 64 bits, little-endian, version 1.
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, ET_CORE, true);
  view.setUint16(18, MACHINES[architecture] ?? 0, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(32, BigInt(ELF_HEADER_BYTES), true);
  view.setUint16(52, ELF_HEADER_BYTES, true);
  view.setUint16(54, PROGRAM_HEADER_BYTES, true);
  view.setUint16(56, regions.length, true);
  const offsets = new Map<number, number>();
  let position = head.length;
  for (const [index, { id, guestAddress, sizeBytes }] of regions.entries()) {
    const at = ELF_HEADER_BYTES + index * PROGRAM_HEADER_BYTES;
    view.setUint32(at, PT_LOAD, true);
    view.setUint32(at + 4, READ_WRITE_EXECUTE, true);
    for (const [field, value] of [
      position,
      guestAddress,
      guestAddress,
      sizeBytes,
      sizeBytes,
      ALIGNMENT,
    ].entries()) {
      view.setBigUint64(at + 8 + 8 * field, BigInt(value), true);
    }
    offsets.set(id, position);
    position += sizeBytes;
  }
  return { head, offsets };
}
