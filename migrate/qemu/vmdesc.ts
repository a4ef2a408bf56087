import { MAX_VMDESC_BYTES, MAX_VMDESC_DEPTH } from "../../src/limits.ts";
import { SECTION } from "./stream-format.ts";
import { count, fail, type Json, list, object, text } from "./vmdesc-json.ts";

/** One device in the description that ends a stream. */
export interface VmdescDevice {
  readonly name: string;
  readonly instanceId: number;
  /** Of devices with a table of fields; the others' bytes have no description. */
  readonly version: number | undefined;
  /** Of the section's content, without its head and footer. */
  readonly sizeBytes: number;
  /** The device's part of the JSON: its fields and subsections, of which only the sizes have been looked at. */
  readonly table: Json;
}

export interface Vmdesc {
  readonly devices: readonly VmdescDevice[];
}

const LENGTH_BYTES = 4;
const BRACE_OPEN = 0x7b;
const BRACE_CLOSE = 0x7d;

/**
 * Looks whether `stream` ends with the end mark (0), then the description (6, be32 length, JSON). Its offset is that of
 * the end mark. The length field is found from its value: nothing else says where it is.
 *
 * @param from The description is behind this offset.
 * @throws FormatError when a description is there, and is none
 */
export function findVmdesc(stream: Uint8Array, from: number): { offset: number; vmdesc: Vmdesc } | undefined {
  if (stream.at(-1) !== BRACE_CLOSE) return undefined;
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  const least = Math.max(from, stream.length - MAX_VMDESC_BYTES);
  for (let at = stream.length - LENGTH_BYTES - 3; at > least; at -= 1) {
    // Going backwards, JSON as QEMU writes it has no byte below a space: the first one is of the length field or before it.
    if (stream[at] !== SECTION.vmdesc || stream[at - 1] !== SECTION.eof) continue;
    const start = at + 1 + LENGTH_BYTES;
    if (stream[start] !== BRACE_OPEN || view.getUint32(at + 1) !== stream.length - start) continue;
    const json = parseJson(stream.subarray(start));
    if (json !== undefined) return { offset: at - 1, vmdesc: readVmdesc(json) };
  }
  return undefined;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    // A length that fits by chance, in the middle of a stream that still comes.
    return undefined;
  }
}

/** @throws FormatError */
function readVmdesc(json: unknown): Vmdesc {
  const { devices } = object(json, "vmdesc");
  return {
    devices: list(devices, "devices").map((entry, index) => {
      const path = `devices[${index}]`;
      const device = object(entry, path);
      return {
        name: text(device.name, `${path}.name`),
        instanceId: count(device.instance_id, `${path}.instance_id`),
        version: device.version === undefined ? undefined : count(device.version, `${path}.version`),
        // Without a table (an old-style save function) the device has one size.
        sizeBytes:
          device.vmsd_name === undefined ? count(device.size, `${path}.size`) : contentBytes(device, path, 0),
        table: device,
      };
    }),
  };
}

/** Bytes of a table's fields, and of its subsections with their heads (5, u8 length, name, be32 version). */
function contentBytes(table: Json, path: string, depth: number): number {
  if (depth > MAX_VMDESC_DEPTH) fail(path, "is nested too deeply");
  let sum = 0;
  for (const [index, entry] of list(table.fields ?? [], `${path}.fields`).entries()) {
    const where = `${path}.fields[${index}]`;
    const field = object(entry, where);
    const times = field.array_len === undefined ? 1 : count(field.array_len, `${where}.array_len`);
    sum += times * count(field.size, `${where}.size`);
  }
  for (const [index, entry] of list(table.subsections ?? [], `${path}.subsections`).entries()) {
    const where = `${path}.subsections[${index}]`;
    const subsection = object(entry, where);
    const name = text(subsection.vmsd_name, `${where}.vmsd_name`);
    sum += 2 + Buffer.byteLength(name) + 4 + contentBytes(subsection, where, depth + 1);
  }
  if (!Number.isSafeInteger(sum)) fail(path, "is too large");
  return sum;
}
