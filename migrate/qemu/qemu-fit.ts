import { CompatibilityError } from "../../src/errors.ts";
import { machineType } from "./describe-machine.ts";
import { fileFacts } from "./machine-disks.ts";
import type { QemuDisk, QemuMachine } from "./qemu-machine.ts";
import { qmpCpus, qmpMemorySize, qmpStatus } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

/**
 * Whether a QEMU that waits can take this machine: said before a byte is sent.
 * @throws CompatibilityError that names what is different
 */
export async function requireFit(client: QmpClient, machine: QemuMachine): Promise<void> {
  const { status } = await client.request("query-status", { answer: qmpStatus });
  if (status !== "inmigrate") {
    throw new CompatibilityError(
      `this QEMU is ${status} and waits for nothing: start one with -incoming defer`,
    );
  }
  const cpus = await client.request("query-cpus-fast", { answer: qmpCpus });
  const memory = await client.request("query-memory-size-summary", { answer: qmpMemorySize });
  const here = {
    "machine type": await machineType(client),
    CPUs: String(cpus.length),
    "memory in bytes": String(memory["base-memory"] + (memory["plugged-memory"] ?? 0)),
  };
  const saved: Record<string, string | number | undefined> = {
    "machine type": machine.machineType,
    CPUs: machine.cpuCount,
    "memory in bytes": machine.memoryBytes,
  };
  // What is not known is left to QEMU, which looks at each memory block and each device.
  const different = Object.entries(here).filter(
    ([what, value]) => saved[what] !== undefined && value !== String(saved[what]),
  );
  if (different.length > 0) {
    const list = different.map(([what, value]) => `${what}: ${value}, saved with ${saved[what]}`);
    throw new CompatibilityError(`this QEMU is another machine (${list.join("; ")})`);
  }
  if (machine.version !== undefined && compareVersions(client.version.text, machine.version) < 0) {
    throw new CompatibilityError(
      `this QEMU is ${client.version.text}, older than the ${machine.version} that saved the VM: use that one or a newer one`,
    );
  }
}

/**
 * A VM that goes on with disks that have moved on without it destroys their file systems.
 * @throws CompatibilityError that names the disks
 */
export function requireSameDisks(machine: Pick<QemuMachine, "disks">): void {
  const changed = changedDisks(machine);
  if (changed.length === 0) return;
  const list = changed.map(({ device, path }) => `${device} (${path})`).join(", ");
  throw new CompatibilityError(
    `changed since the save: ${list}. Put back what was there then, or use --force if you know that it is the same content`,
  );
}

/** The disks that somebody has written to since the save, as far as their files tell. */
export function changedDisks({ disks }: Pick<QemuMachine, "disks">): QemuDisk[] {
  return disks.filter((disk) => {
    if (disk.readOnly || disk.modifiedNs === undefined) return false;
    const now = fileFacts(disk.path);
    return now.inode !== disk.inode || now.fileBytes !== disk.fileBytes || now.modifiedNs !== disk.modifiedNs;
  });
}

/** Below zero where `one` is the older. */
export function compareVersions(one: string, other: string): number {
  const [a, b] = [one, other].map((text) => text.split(".").map(Number));
  for (let at = 0; at < 3; at += 1) {
    const difference = (a?.[at] ?? 0) - (b?.[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
