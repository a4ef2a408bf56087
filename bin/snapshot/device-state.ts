import {
  type DeviceStateForm,
  decodeDeviceState,
  decodeDeviceStateAs,
  type StateTree,
} from "../../migrate/decode/mod.ts";
import type { SnapshotDevice, SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { FormatError } from "../../src/errors.ts";
import { MAX_STATE_SECTION_BYTES } from "../../src/limits.ts";

/** A device's state as a tree. What is of no known form, or too large to look at at once, is bytes with a note. */
export function deviceStateTree(
  reader: SnapshotReader,
  device: SnapshotDevice,
  form?: DeviceStateForm,
): StateTree {
  const { id, name, type, backend } = device;
  const bytes = firstBytes(reader, id);
  const isCut = bytes.length > MAX_STATE_SECTION_BYTES;
  if (isCut) {
    const note = "too large to be taken apart: --hex shows it, vhu snapshot extract writes it to a file";
    return { name, bytes: bytes.subarray(0, 64), note };
  }
  if (form !== undefined) return { ...decodeDeviceStateAs(form, bytes), name };
  const { executable } = backend;
  const tree = decodeAny(bytes, { type, executable });
  return { ...tree, name };
}

function decodeAny(
  bytes: Uint8Array,
  origin: Parameters<typeof decodeDeviceState>[1],
): Omit<StateTree, "name"> {
  try {
    const tree = decodeDeviceState(bytes, origin);
    return tree ?? { bytes, note: "of no form that vhu knows: --as FORM tries one, --hex shows the bytes" };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { bytes, note: `cannot be taken apart: ${error.message}` };
  }
}

/** All, or a little more than can be looked at. */
function firstBytes(reader: SnapshotReader, deviceId: number): Uint8Array {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for (const chunk of reader.deviceState(deviceId)) {
    chunks.push(chunk);
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_STATE_SECTION_BYTES) break;
  }
  return Buffer.concat(chunks);
}
