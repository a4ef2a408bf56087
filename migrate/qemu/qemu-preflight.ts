import type { PreflightCheck } from "../driver.ts";
import { checkDisks, type DiskCare } from "./disk-care.ts";
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
  readonly care: DiskCare | undefined;
  /** There is a place for copies of disks. */
  readonly canCopy: boolean;
}

/** What could keep this machine from being saved; nothing is touched. */
export async function qemuPreflight(
  client: QmpClient,
  machine: QemuMachine,
  { care, canCopy }: QemuPreflightOptions,
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
    ...checkHotPlug(machine),
    ...checkBackends(machine),
    checkDisks(machine, care, canCopy),
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

/** A load starts QEMU from its command line: what was plugged in since has to be said in arguments. */
function checkHotPlug({ added = [], removed = [], notRebuilt = [] }: QemuMachine): PreflightCheck[] {
  if (added.length + removed.length + notRebuilt.length === 0) return [];
  const ok = notRebuilt.length === 0;
  const found = [
    ...added
      .filter((_, at) => added[at - 1] === "-device")
      .map((words) => `${words.split(",", 1)} was plugged in`),
    ...removed.map((id) => `${id} was taken out`),
  ];
  return [
    {
      name: "hot-plugged devices",
      ok,
      detail: ok
        ? `${found.join(", ")}: a load makes it so`
        : `a load cannot make ${notRebuilt.join(", ")}: take it out (device_del), or start the VM with it`,
    },
  ];
}

/** QEMU itself names a back-end that cannot log or has no state to give; what it cannot see is who is behind it. */
function checkBackends({ backends = [] }: QemuMachine): PreflightCheck[] {
  return backends.map(({ type, chardev, executable, socket, protocolFeatures }) => {
    const missing = missingFeatures(type, protocolFeatures);
    const who =
      executable === undefined ? "a process that is not to be seen: load cannot start it" : executable;
    return {
      name: `back-end ${chardev}`,
      ok: missing.length === 0,
      detail:
        missing.length === 0
          ? `${type} at ${socket}, ${who}`
          : `${type} at ${socket} lacks ${missing.join(" and ")}: use a back-end that has it (vhu device probe)`,
    };
  });
}

/** Known only while the guest's driver uses the device. */
function missingFeatures(type: string, features: readonly string[] | undefined): string[] {
  if (features === undefined) return [];
  const needed = ["LOG_SHMFD", ...(type === "fs" ? ["DEVICE_STATE"] : [])];
  return needed.filter((name) => !features.includes(`VHOST_USER_PROTOCOL_F_${name}`));
}
