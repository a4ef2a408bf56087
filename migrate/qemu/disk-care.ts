import { lstatSync } from "node:fs";
import type { PreflightCheck } from "../driver.ts";
import type { QemuDisk, QemuMachine } from "./qemu-machine.ts";

/**
 * How the disks that a VM can write are those of the moment of the save.
 * - "stop": the VM ends with the save, and leaves them alone.
 * - "external": the user copies them.
 * - "overlay": the VM goes on over new overlays; the files that it had are not written any more. Images of vhu's own
 *   back-ends are copied.
 * - "include": all are copied, beside the snapshot, while the VM stands still.
 * - undefined: nobody has said; a VM that can write to a disk is not saved.
 */
export type DiskCare = "stop" | "external" | "overlay" | "include";

/** Formats in which QEMU can keep a backing file apart from what is written over it. */
const OVERLAID = ["raw", "qcow2"];

/** Those that vhu can keep as they are. */
export function writableDisks({ disks }: Pick<QemuMachine, "disks">): QemuDisk[] {
  return disks.filter(({ readOnly, isForeign }) => !readOnly && !isForeign);
}

/** @param canCopy There is a place for copies: the snapshot is a file. */
export function checkDisks(
  machine: QemuMachine,
  care: DiskCare | undefined,
  canCopy: boolean,
): PreflightCheck {
  const own = writableDisks(machine);
  const foreign = foreignBackends(machine);
  const list = [...own.map(named), ...foreign].join(", ");
  const check = (ok: boolean, detail: string) => ({ name: "disks", ok, detail });
  if (list === "") return check(true, "none can be written");
  if (care === "stop" || care === "external") return check(true, `not in the file: ${list}`);
  if (care === undefined && foreign.length > 0) {
    return check(
      false,
      `the VM goes on and writes to ${list}: save with --stop; or with --disks external, and copy them yourself`,
    );
  }
  if (care === undefined) {
    return check(
      false,
      `the VM goes on and writes to ${list}: save with --stop; or with --disks include (copies beside the snapshot, made while ` +
        "the VM stands still), --disks overlay (it goes on over overlays, and must be started with them from then on), or --disks external (you copy them)",
    );
  }
  if (foreign.length > 0) {
    return check(
      false,
      `vhu cannot keep what ${foreign.join(", ")} writes to as it is: save with --stop, or with --disks external and copy it yourself`,
    );
  }
  const unfit = own.map((disk) => obstacle(disk, care)).filter((each) => each !== undefined);
  if (unfit.length > 0) return check(false, unfit.join("; "));
  const copied = own.filter((disk) => care === "include" || disk.backend !== undefined);
  if (copied.length > 0 && !canCopy) {
    return check(
      false,
      "copies of disks go beside the snapshot: give a file and not a pipe, or --disks external",
    );
  }
  return check(true, care === "include" ? `will be copied: ${list}` : `will be kept as they are: ${list}`);
}

function named({ device, path }: QemuDisk): string {
  return `${device} (${path})`;
}

/** Back-ends whose storage vhu knows no file of, or that are not vhu's own. */
function foreignBackends({ virtioDevices, disks }: QemuMachine): string[] {
  const known = new Map(disks.map((disk) => [disk.backend, disk]));
  return virtioDevices.flatMap(({ type, path, chardev }) => {
    if (!/^vhost-user-(?:blk|fs|scsi)/.test(type)) return [];
    const disk = known.get(chardev ?? "");
    if (disk === undefined) return [`${type} ${path}`];
    return disk.isForeign && !disk.readOnly ? [`${type} ${path} (${disk.path})`] : [];
  });
}

function obstacle(disk: QemuDisk, care: DiskCare): string | undefined {
  const file = lstatSync(disk.path, { throwIfNoEntry: false });
  if (file === undefined) return `${named(disk)} is no file here: save with --stop or --disks external`;
  if (care === "include" || disk.backend !== undefined) {
    const backing = disk.files?.length ?? 1;
    if (file.isFile() || file.isBlockDevice() || file.isSymbolicLink()) {
      return backing <= 1
        ? undefined
        : `${named(disk)} stands on other files: save with --disks overlay or --stop`;
    }
    return `${named(disk)} is neither a file nor a block device: save with --stop or --disks external`;
  }
  if (!OVERLAID.includes(disk.format))
    return `${named(disk)} is ${disk.format}, over which vhu makes no overlay`;
  if (disk.node === undefined || !file.isFile()) {
    return `${named(disk)} is no regular file, so an overlay has no place: save with --disks include or --stop`;
  }
  return undefined;
}
