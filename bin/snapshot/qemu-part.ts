import { isQemuMachine, parseQemuMachine } from "../../migrate/qemu/mod.ts";
import { CompatibilityError } from "../../src/errors.ts";
import { formatBytes } from "../output/format.ts";

/** A line about a QEMU machine: what it is about, what kind of thing that is, and what is known of it. */
export interface QemuRow {
  readonly what: string;
  readonly name: string;
  readonly detail: string;
}

/** The virtio devices, back-ends and disks of a QEMU machine; none for another machine. */
export function qemuRows(machine: unknown): QemuRow[] {
  if (!isQemuMachine(machine)) return [];
  try {
    const { virtioDevices, backends = [], disks } = parseQemuMachine(machine);
    return [
      ...virtioDevices.map(({ type, path, features }) => ({
        what: type,
        name: path,
        detail: `${features.length} features accepted`,
      })),
      ...backends.map(({ type, socket, executable = "unknown", version, pid }) => ({
        what: `back-end (${type})`,
        name: socket,
        detail: `${[executable, version].filter(Boolean).join(" ")}${pid === undefined ? "" : `, was process ${pid}`}`,
      })),
      ...disks.map(({ path, format, sizeBytes, readOnly }) => ({
        what: "disk",
        name: path,
        detail: `${format}, ${formatBytes(sizeBytes)}${readOnly ? ", read-only" : ""}; not in the snapshot`,
      })),
    ];
  } catch (error) {
    if (!(error instanceof CompatibilityError)) throw error;
    return [{ what: "machine", name: "QEMU", detail: error.message }];
  }
}
