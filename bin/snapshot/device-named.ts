import type { SnapshotDevice, SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { UsageError } from "../../src/errors.ts";

/** @throws UsageError that names those that there are */
export function deviceNamed({ manifest }: SnapshotReader, name: string): SnapshotDevice {
  const device = manifest.devices.find((candidate) => candidate.name === name);
  if (device !== undefined) return device;
  const names = manifest.devices.map((candidate) => candidate.name).join(", ");
  throw new UsageError(`the snapshot has no device "${name}"; it has ${names === "" ? "none" : names}`);
}
