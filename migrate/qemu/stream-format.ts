/** Numbers of QEMU's migration stream, version 3 (QEMU migration/savevm.c, migration/ram.c). All integers are big-endian. */
export const STREAM_MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;

export const SECTION = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  vmdesc: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** Commands that a destination needs no more for than to answer: the return path, and a switchover without data. */
export const COMMAND = { openReturnPath: 1, ping: 2, switchoverStart: 11 } as const;

/** In the low bits of an address. */
export const RAM_FLAG = {
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  endOfSection: 0x10,
  sameBlock: 0x20,
  xbzrle: 0x40,
  hook: 0x80,
  compressed: 0x100,
  multifdFlush: 0x200,
} as const;

/** Of x86_64 and aarch64 guests with 4 KiB pages: flags and addresses share a word below this. */
export const TARGET_PAGE_BYTES = 4096;
export const RAM_SECTION_NAME = "ram";
export const RAM_SECTION_VERSION = 4;
/** Type, section id. */
export const FOOTER_BYTES = 5;

/** A block of guest memory as the stream names it. */
export interface RamBlock {
  readonly name: string;
  readonly sizeBytes: number;
}
