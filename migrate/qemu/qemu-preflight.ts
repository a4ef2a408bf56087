import type { PreflightCheck } from "../driver.ts";
import type { QemuMachine } from "./qemu-machine.ts";
import { qmpMemoryDevices, qmpMigration } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

/** Run states that a VM is saved in, and brought back to. The others have something unfinished, or are over. */
const SAVED_STATES = ["running", "paused", "prelaunch"];
const UNDER_WAY = [
  "setup",
  "active",
  "pre-switchover",
  "device",
  "wait-unplug",
  "cancelling",
  "postcopy-active",
];

export interface QemuPreflightOptions {
  /** The caller takes care that the disks are those of the moment of the save. */
  readonly areDisksCared: boolean;
}

/** What could keep this machine from being saved; nothing is touched. */
export async function qemuPreflight(
  client: QmpClient,
  machine: QemuMachine,
  { areDisksCared }: QemuPreflightOptions,
): Promise<PreflightCheck[]> {
  const migration = await client.request("query-migrate", { answer: qmpMigration });
  const status = migration.status ?? "none";
  const blocked = migration["blocked-reasons"] ?? [];
  const isStateFit = SAVED_STATES.includes(machine.runState);
  const isFree = !UNDER_WAY.includes(status);
  return [
    {
      name: "QEMU",
      ok: true,
      detail: `${machine.version} (${machine.package})${machine.executable === undefined ? "; its process is not to be seen, so the command line is not recorded" : `, ${machine.executable}`}`,
    },
    {
      name: "machine type",
      ok: machine.machineType !== "none",
      detail: `${machine.machineType}, ${machine.cpuCount} CPUs of type ${machine.cpuType}`,
    },
    {
      name: "run state",
      ok: isStateFit,
      detail: isStateFit
        ? machine.runState
        : `${machine.runState}: only a VM that runs or is paused can be saved`,
    },
    {
      name: "no other migration",
      ok: isFree,
      detail: isFree ? "none is under way" : `one is ${status}: wait for it, or cancel it`,
    },
    ...(blocked.length === 0
      ? [{ name: "migration", ok: true, detail: "QEMU names no obstacle" }]
      : blocked.map((reason) => ({ name: "migration", ok: false, detail: reason }))),
    await checkMemory(client),
    checkDisks(machine, areDisksCared),
  ];
}

async function checkMemory(client: QmpClient): Promise<PreflightCheck> {
  const devices = await client.request("query-memory-devices", { answer: qmpMemoryDevices });
  const virtio = devices.filter(({ type }) => type === "virtio-mem");
  return {
    name: "memory",
    ok: virtio.length === 0,
    detail: virtio.length === 0 ? "all of it can be saved" : "virtio-mem is not supported: unplug it first",
  };
}

function checkDisks({ disks, virtioDevices }: QemuMachine, areDisksCared: boolean): PreflightCheck {
  const writable = [
    ...disks.filter(({ readOnly }) => !readOnly).map(({ device, path }) => `${device} (${path})`),
    ...virtioDevices
      .filter(({ type }) => /^vhost-user-(?:blk|fs|scsi)/.test(type))
      .map(({ type, path }) => `${type} ${path}`),
  ];
  const ok = areDisksCared || writable.length === 0;
  const list = writable.join(", ");
  return {
    name: "disks",
    ok,
    detail:
      writable.length === 0
        ? "none can be written"
        : ok
          ? `not in the file: ${list}`
          : `the VM goes on and writes to ${list}: save with --stop, or with --disks external and copy them yourself`,
  };
}
