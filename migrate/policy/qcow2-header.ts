/**
 * What other files a qcow2 image stands on, by its first cluster (QEMU's docs/interop/qcow2.rst). Pure. No program of QEMU's is
 * run to find that out: on a hostile image it would open what the image names.
 */
import { FormatError } from "../../src/errors.ts";

export interface Qcow2References {
  /** As it stands there; without a format QEMU guesses one from the content. */
  readonly backing?: { readonly name: string; readonly format: string | undefined } | undefined;
  /** Where the data of the image is, if not in it. */
  readonly dataFile?: string | undefined;
}

/** The first cluster is no longer. */
export const MAX_QCOW2_CLUSTER_BYTES = 2 << 20;

const MAGIC = 0x514649fb;
const HEAD_BYTES = 72;
const LONG_HEAD_BYTES = 104;
const [LEAST_CLUSTER_BITS, MOST_CLUSTER_BITS] = [9, 21];
const MAX_NAME_BYTES = 1023;
const EXTENSION = { end: 0, backingFormat: 0xe2792aca, dataFile: 0x44415441 } as const;

/** @param bytes The image from its start, all of its first cluster that there is. @throws FormatError */
export function parseQcow2References(bytes: Uint8Array): Qcow2References {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEAD_BYTES || view.getUint32(0) !== MAGIC) throw fault("it is none", 0);
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) throw fault(`its version is ${version}`, 4);
  const clusterBits = view.getUint32(20);
  if (clusterBits < LEAST_CLUSTER_BITS || clusterBits > MOST_CLUSTER_BITS) {
    throw fault(`its clusters have 2^${clusterBits} bytes`, 20);
  }
  const clusterBytes = Math.min(2 ** clusterBits, bytes.length);
  const name = backingName(view, bytes, clusterBytes);
  const start = version === 2 ? HEAD_BYTES : headBytes(view);
  const extensions = readExtensions(view, bytes, start, name?.offset ?? clusterBytes);
  return {
    backing: name && { name: name.text, format: extensions.get(EXTENSION.backingFormat) },
    dataFile: extensions.get(EXTENSION.dataFile),
  };
}

function backingName(view: DataView, bytes: Uint8Array, clusterBytes: number) {
  const [offset, sizeBytes] = [view.getBigUint64(8), view.getUint32(16)];
  if (offset === 0n) return undefined;
  if (sizeBytes > MAX_NAME_BYTES || offset + BigInt(sizeBytes) > BigInt(clusterBytes)) {
    throw fault("the name of its backing file is not in its first cluster", 8);
  }
  return { offset: Number(offset), text: textOf(bytes, Number(offset), sizeBytes) };
}

function headBytes(view: DataView): number {
  const sizeBytes = view.byteLength < LONG_HEAD_BYTES ? 0 : view.getUint32(100);
  if (sizeBytes >= LONG_HEAD_BYTES) return sizeBytes;
  throw fault("its header is cut off", 100);
}

/** The text of each extension; what is no name is in there too, and nobody asks for it. */
function readExtensions(view: DataView, bytes: Uint8Array, start: number, end: number): Map<number, string> {
  const found = new Map<number, string>();
  for (let at = start; at + 8 <= end; ) {
    const [type, sizeBytes] = [view.getUint32(at), view.getUint32(at + 4)];
    at += 8;
    if (type === EXTENSION.end) break;
    if (sizeBytes > end - at) throw fault("an extension of its header is cut off", at);
    // Of two of a kind, nobody can say which one counts.
    if (found.has(type)) throw fault("an extension of its header is there twice", at);
    const isName = type === EXTENSION.backingFormat || type === EXTENSION.dataFile;
    found.set(type, isName ? textOf(bytes, at, sizeBytes) : "");
    at += Math.ceil(sizeBytes / 8) * 8;
  }
  return found;
}

/** QEMU takes a name as it stands; one that is no text, or ends before its end, is none that a person has given. */
function textOf(bytes: Uint8Array, offset: number, sizeBytes: number): string {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(
      bytes.subarray(offset, offset + sizeBytes).slice(),
    );
    if (text !== "" && !/\p{Cc}/u.test(text)) return text;
  } catch {
    // As below.
  }
  throw fault("a name in its header is no text", offset);
}

function fault(message: string, offset: number): FormatError {
  return new FormatError(`this is no qcow2 image as it should be: ${message}`, "qcow2", offset);
}
