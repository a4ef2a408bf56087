import { type DeviceStateForm, decodeDeviceState, type StateTree } from "../../migrate/decode/mod.ts";
import { RecordType, type SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { FormatError, UsageError } from "../../src/errors.ts";
import { deviceStateTree } from "./device-state.ts";

/** Names that an error lists. */
const LISTED_NAMES = 40;

/**
 * The states that a snapshot holds, as trees, by the names that `--device` takes: those of the manifest's devices, and of
 * every section of a QEMU stream.
 *
 * @throws FormatError
 */
export async function deviceTrees(reader: SnapshotReader): Promise<Map<string, StateTree>> {
  const trees = new Map<string, StateTree>();
  for (const device of reader.manifest.devices) {
    if (
      reader.streams.some(({ streamId, type }) => streamId === device.id && type === RecordType.deviceState)
    ) {
      trees.set(
        device.name,
        damageAsNote(device.name, () => deviceStateTree(reader, device)),
      );
    }
  }
  for (const [name, tree] of await qemuTrees(reader)) if (!trees.has(name)) trees.set(name, tree);
  return trees;
}

/** One of them. A part of a QEMU section's name does, where it is the only one. @throws UsageError, FormatError */
export async function deviceTreeNamed(
  reader: SnapshotReader,
  name: string,
  form?: DeviceStateForm,
): Promise<StateTree> {
  const device = reader.manifest.devices.find((candidate) => candidate.name === name);
  if (device !== undefined) return deviceStateTree(reader, device, form);
  const sections = await qemuTrees(reader);
  const exact = sections.get(name);
  const alike = [...sections.keys()].filter((candidate) => candidate.includes(name));
  const found = exact ?? (alike.length === 1 ? sections.get(alike[0] as string) : undefined);
  if (found !== undefined) return found;
  const known =
    alike.length > 1 ? alike : [...reader.manifest.devices.map((each) => each.name), ...sections.keys()];
  const more = known.length > LISTED_NAMES ? ` and ${known.length - LISTED_NAMES} more` : "";
  const list = known.length === 0 ? "none" : known.slice(0, LISTED_NAMES).join(", ") + more;
  throw new UsageError(
    alike.length > 1
      ? `"${name}" can be several: ${list}`
      : `the snapshot has no device "${name}"; it has ${list}`,
  );
}

/** What takes QEMU's stream apart is loaded for a machine of QEMU's only. */
async function qemuTrees(reader: SnapshotReader): Promise<ReadonlyMap<string, StateTree>> {
  if (reader.manifest.machine?.kind !== "qemu") return new Map();
  const { qemuDeviceTrees } = await import("../../migrate/qemu/mod.ts");
  const decodeBackendState = (state: Uint8Array) => decodeDeviceState(state, { type: "fs" });
  return qemuDeviceTrees(reader, { decodeBackendState }) ?? new Map();
}

function damageAsNote(name: string, decode: () => StateTree): StateTree {
  try {
    return decode();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { name, note: `DAMAGED: ${error.message}` };
  }
}
