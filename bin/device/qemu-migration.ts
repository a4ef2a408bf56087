import type { DeviceTypeName } from "../../src/frontend/mod.ts";
import type { ProtocolFeature } from "../../src/wire/mod.ts";

/** Whether QEMU would migrate a VM that has this back-end, and why not, or on what it depends. */
export interface QemuMigration {
  readonly possible: boolean;
  readonly reason: string;
}

/** Types whose QEMU front-end can migrate; it marks the others as unmigratable. */
const MIGRATABLE: readonly DeviceTypeName[] = ["blk", "fs", "net", "scsi", "gpu", "crypto"];
/** Types that keep state that only the back-end knows. */
const STATEFUL: readonly DeviceTypeName[] = ["fs"];

export function qemuMigration(
  type: DeviceTypeName | undefined,
  hasLogAll: boolean,
  has: (feature: ProtocolFeature) => boolean,
): QemuMigration {
  const missing = [...(hasLogAll ? [] : ["LOG_ALL"]), ...(has("LOG_SHMFD") ? [] : ["LOG_SHMFD"])];
  if (type !== undefined && STATEFUL.includes(type) && !has("DEVICE_STATE")) missing.push("DEVICE_STATE");
  if (missing.length > 0) return { possible: false, reason: `it lacks ${missing.join(" and ")}` };
  if (type === undefined) return { possible: true, reason: `if it is one of ${MIGRATABLE.join(", ")}` };
  if (MIGRATABLE.includes(type)) return { possible: true, reason: "it offers LOG_ALL and LOG_SHMFD" };
  return { possible: false, reason: `QEMU migrates no vhost-user ${type} device` };
}
