const NT_PRSTATUS = 1;
const HEAD_BYTES = 12;
/** struct elf_prstatus (include/linux/elfcore.h). */
const PRSTATUS_BYTES: Readonly<Record<string, number>> = { x64: 336, arm64: 392 };

/** A note of a core file: u32 size of the name, u32 size of the content, u32 type; name and content, each padded to 4 bytes. */
export function coreNote(name: string, type: number, content: Uint8Array): Uint8Array {
  const nameBytes = new TextEncoder().encode(`${name}\0`);
  const contentAt = HEAD_BYTES + padded(nameBytes.length);
  const note = new Uint8Array(contentAt + padded(content.length));
  const view = new DataView(note.buffer);
  view.setUint32(0, nameBytes.length, true);
  view.setUint32(4, content.length, true);
  view.setUint32(8, type, true);
  note.set(nameBytes, HEAD_BYTES);
  note.set(content, contentAt);
  return note;
}

/** A thread whose registers are not known; empty for an architecture that is not. */
export function threadNote(architecture: string): Uint8Array {
  const sizeBytes = PRSTATUS_BYTES[architecture];
  return sizeBytes === undefined
    ? new Uint8Array(0)
    : coreNote("CORE", NT_PRSTATUS, new Uint8Array(sizeBytes));
}

function padded(sizeBytes: number): number {
  return Math.ceil(sizeBytes / 4) * 4;
}
