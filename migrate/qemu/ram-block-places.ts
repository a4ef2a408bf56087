/** A RAM block of a QEMU: where it is in that process. */
export interface RamBlockPlace {
  readonly name: string;
  readonly sizeBytes: number;
  readonly address: number;
}

/** name, page size, offset, used, total, address in the process, and whether the guest can write to it. */
const LINE = /^\s*(\S.*?)\s+\d+ \S+\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+rw\s*$/;

/** Of the answer to HMP's "info ramblock", the blocks that a guest can write to; none where it has another form. */
export function ramBlockPlaces(text: string): RamBlockPlace[] {
  return text.split("\n").flatMap((line) => {
    const [, name, used, total, place] = LINE.exec(line) ?? [];
    if (name === undefined || used !== total) return [];
    const [sizeBytes, address] = [Number.parseInt(total as string, 16), Number.parseInt(place as string, 16)];
    return Number.isSafeInteger(sizeBytes) && Number.isSafeInteger(address)
      ? [{ name, sizeBytes, address }]
      : [];
  });
}
