import type { StateTree } from "../../decode/mod.ts";

/** QEMU's mark of a pointer that is NULL, in an array of pointers (VMS_NULLPTR_MARKER). */
const NULL_MARK = 0x30;
const INTEGER_TYPE = /^(u?)int(8|16|32|64)(?: |$)/;
/** A timer that is not armed, as QEMU stores it. */
const NO_TIME = 0xffff_ffff_ffff_ffffn;
/** Text in a buffer is shown beside the bytes; a longer one is no name. */
const MAX_TEXT_BYTES = 256;

type Shown = Omit<StateTree, "name">;

/**
 * One field that holds no other fields, by the type and the size that the stream tells. A type that is not known here, or
 * is of another size than it says, stays bytes: nothing is guessed.
 */
export function fieldValue(type: string, bytes: Uint8Array): Shown {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const integer = INTEGER_TYPE.exec(type);
  if (integer !== null && Number(integer[2]) === bytes.length * 8) {
    return { value: integerOf(view, integer[1] === "u"), note: noteOf(type.slice(integer[0].length)) };
  }
  if (type === "bool" && bytes.length === 1) return { value: bytes[0] !== 0 };
  if (type === "timer" && bytes.length === 8) return timerOf(view.getBigUint64(0));
  if (type === "nullptr" && bytes[0] === NULL_MARK) return { note: "nothing (NULL)" };
  if (type === "pci irq state" && bytes.length === 16) {
    return { children: [0, 1, 2, 3].map((pin) => ({ name: `[${pin}]`, value: view.getUint32(pin * 4) })) };
  }
  if (bytes.length === 0) return { note: noteOf(type) ?? "nothing" };
  if (type === "unused_buffer") return { bytes, note: "unused" };
  if (type === "buffer") return { bytes, note: textNote(bytes) };
  return { bytes, note: noteOf(type) };
}

function integerOf(view: DataView, isUnsigned: boolean): number | bigint {
  switch (view.byteLength) {
    case 1:
      return isUnsigned ? view.getUint8(0) : view.getInt8(0);
    case 2:
      return isUnsigned ? view.getUint16(0) : view.getInt16(0);
    case 4:
      return isUnsigned ? view.getUint32(0) : view.getInt32(0);
    default:
      return safe(isUnsigned ? view.getBigUint64(0) : view.getBigInt64(0));
  }
}

function safe(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function timerOf(value: bigint): Shown {
  return value === NO_TIME ? { note: "a timer that is not armed" } : { value: safe(value), note: "ns" };
}

function noteOf(text: string): string | undefined {
  return text === "" ? undefined : text;
}

/** A name in a buffer with zeros behind it, e.g. the run state. */
function textNote(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  const length = end < 0 ? bytes.length : end;
  if (length < 2 || length > MAX_TEXT_BYTES) return undefined;
  const isText = bytes.every((byte, at) => (at < length ? byte >= 0x20 && byte < 0x7f : byte === 0));
  return isText
    ? `text ${JSON.stringify(Buffer.from(bytes.subarray(0, length)).toString("latin1"))}`
    : undefined;
}
