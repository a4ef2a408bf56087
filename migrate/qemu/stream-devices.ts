import { FormatError } from "../../src/errors.ts";
import { MAX_QEMU_SECTIONS } from "../../src/limits.ts";
import { FOOTER_BYTES, SECTION } from "./stream-format.ts";
import { readString } from "./stream-string.ts";
import type { Vmdesc, VmdescDevice } from "./vmdesc.ts";

/** A device's part of a stream. */
export interface StreamSection {
  /** As QEMU names it, e.g. "0000:00:03.0/vhost-user-fs". It is text from a file: never a path. */
  readonly name: string;
  readonly instanceId: number;
  readonly version: number;
  /** Of the content, from the start of the stream without pages. */
  readonly offset: number;
  readonly sizeBytes: number;
}

/**
 * Walks the device sections by the sizes of the description, and compares every head and footer on the way: a
 * description that does not fit the bytes is not believed.
 *
 * @param stream Up to the end mark.
 * @throws FormatError
 */
export function checkSections(stream: Uint8Array, from: number, vmdesc: Vmdesc): StreamSection[] {
  if (vmdesc.devices.length > MAX_QEMU_SECTIONS) throw new FormatError("too many devices", "vmdesc");
  const sections: StreamSection[] = [];
  let at = from;
  for (const device of vmdesc.devices) {
    const section = checkSection(stream, at, device);
    sections.push(section);
    at = section.offset + section.sizeBytes + FOOTER_BYTES;
  }
  if (at !== stream.length) {
    throw new FormatError(`${stream.length - at} bytes follow the last device`, "QEMU stream", at);
  }
  return sections;
}

function checkSection(stream: Uint8Array, at: number, device: VmdescDevice): StreamSection {
  const view = new DataView(stream.buffer, stream.byteOffset, stream.byteLength);
  const fail = (what: string, offset: number): never => {
    throw new FormatError(`${what} (${JSON.stringify(device.name)})`, "QEMU stream", offset);
  };
  // Type, id, length of the name; after the name the instance and the version.
  const nameStart = at + 6;
  if (nameStart > stream.length || stream[at] !== SECTION.full) fail("the device's section is not there", at);
  const id = view.getUint32(at + 1);
  const nameEnd = nameStart + (stream[at + 5] as number);
  const offset = nameEnd + 8;
  const end = offset + device.sizeBytes;
  if (end + FOOTER_BYTES > stream.length) fail("the device's section is cut off", at);
  const name = readString(stream.subarray(nameStart, nameEnd), "a section's name", nameStart);
  const [instanceId, version] = [view.getUint32(nameEnd), view.getUint32(nameEnd + 4)];
  const isSame = name === device.name && instanceId === device.instanceId;
  if (!isSame || (device.version !== undefined && device.version !== version)) {
    fail(`another device than the one described: ${JSON.stringify(name)}`, at);
  }
  if (stream[end] !== SECTION.footer || view.getUint32(end + 1) !== id)
    fail("the device's section has no footer", end);
  return { name, instanceId, version, offset, sizeBytes: device.sizeBytes };
}
