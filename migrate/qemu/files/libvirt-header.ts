import { CompatibilityError, FormatError, UsageError } from "../../../src/errors.ts";
import { MAX_LIBVIRT_DATA_BYTES } from "../../../src/limits.ts";

/** libvirt's src/qemu/qemu_saveimage.h: magic, version, data length, was running, format, cookie's offset, 14 words. */
const HEADER_BYTES = 92;
const MAGIC = "LibvirtQemudSave";
/** Of a file that is still written, or whose writing was cut off. */
const PARTIAL_MAGIC = "LibvirtQemudPart";
const VERSION = 2;
/** Room that libvirt leaves behind the XML, so that `virsh save-image-edit` can make it longer. */
const ROOM_BYTES = 64 * 1024;
/** By number: names are libvirt's (save_image_format in qemu.conf). */
const FORMATS = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"] as const;

export type LibvirtFormat = (typeof FORMATS)[number];

/** What stands in a `virsh save` file before QEMU's stream. */
export interface LibvirtImage {
  readonly xml: string;
  /** libvirt's own notes for the restore, XML too. */
  readonly cookie: string | undefined;
  readonly wasRunning: boolean;
}

export interface LibvirtHead extends LibvirtImage {
  readonly format: LibvirtFormat;
  /** Of QEMU's stream in the file. */
  readonly streamOffset: number;
}

export function isLibvirtImage(start: Uint8Array): boolean {
  return [MAGIC, PARTIAL_MAGIC].includes(latin1(start.subarray(0, MAGIC.length)));
}

/**
 * @param read Bytes of the file; it refuses what is beyond its end.
 * @throws FormatError, CompatibilityError for one of another version, or that was never finished
 */
export function readLibvirtHead(read: (offset: number, sizeBytes: number) => Uint8Array): LibvirtHead {
  const header = read(0, HEADER_BYTES).slice();
  const magic = latin1(header.subarray(0, MAGIC.length));
  if (magic === PARTIAL_MAGIC) {
    throw new FormatError("libvirt never finished this file: the save was cut off", "libvirt header", 0);
  }
  if (magic !== MAGIC) throw new FormatError("this is no virsh save file", "libvirt header", 0);
  const view = new DataView(header.buffer);
  // In the byte order of the host that wrote it: the version tells which.
  const isLittle = view.getUint32(16, true) === VERSION;
  if (!isLittle && view.getUint32(16) !== VERSION) {
    throw new CompatibilityError(
      `virsh save files of version ${view.getUint32(16, true)} are not known: ${VERSION} is`,
    );
  }
  const [dataBytes, wasRunning, number, cookieOffset] = [20, 24, 28, 32].map((at) =>
    view.getUint32(at, isLittle),
  ) as [number, number, number, number];
  if (dataBytes === 0 || dataBytes > MAX_LIBVIRT_DATA_BYTES) {
    throw new FormatError(`the machine's XML has ${dataBytes} bytes`, "libvirt header", 20);
  }
  if (cookieOffset >= dataBytes) {
    throw new FormatError(`the cookie lies at ${cookieOffset}, behind the XML`, "libvirt header", 32);
  }
  const data = read(HEADER_BYTES, dataBytes).slice();
  const xml = untilNul(data.subarray(0, cookieOffset === 0 ? dataBytes : cookieOffset));
  const cookie = cookieOffset === 0 ? undefined : untilNul(data.subarray(cookieOffset));
  const streamOffset = HEADER_BYTES + dataBytes;
  return { xml, cookie, wasRunning: wasRunning !== 0, format: formatOf(number), streamOffset };
}

/** The head of a file that libvirt restores, for an uncompressed stream behind it. @throws UsageError where it is too large */
export function encodeLibvirtHead({ xml, cookie, wasRunning }: LibvirtImage): Uint8Array {
  const texts = [xml, ...(cookie === undefined ? [] : [cookie])].map((text) => Buffer.from(`${text}\0`));
  const textBytes = texts.reduce((sum, { length }) => sum + length, 0);
  const dataBytes = textBytes + ROOM_BYTES;
  if (dataBytes > MAX_LIBVIRT_DATA_BYTES) throw new UsageError(`an XML of ${textBytes} bytes is too large`);
  const bytes = Buffer.alloc(HEADER_BYTES + dataBytes);
  bytes.write(MAGIC, "latin1");
  const words = [VERSION, dataBytes, wasRunning ? 1 : 0, 0, cookie === undefined ? 0 : texts[0]!.length];
  for (const [index, word] of words.entries()) bytes.writeUInt32LE(word, MAGIC.length + 4 * index);
  Buffer.concat(texts).copy(bytes, HEADER_BYTES);
  return bytes;
}

function formatOf(number: number): LibvirtFormat {
  const format = FORMATS[number];
  if (format !== undefined) return format;
  throw new CompatibilityError(`the virsh save file is compressed in a way (${number}) that is not known`);
}

function untilNul(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  if (end < 0) throw new FormatError("the machine's XML has no end", "libvirt header", HEADER_BYTES);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, end));
  } catch (cause) {
    throw new FormatError("the machine's XML is no text", "libvirt header", HEADER_BYTES, { cause });
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}
