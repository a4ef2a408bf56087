import { CompatibilityError, UsageError } from "../../src/errors.ts";
import { copyPath } from "../disks/mod.ts";
import { fileFacts } from "./machine-disks.ts";
import { requireSameDisks } from "./qemu-fit.ts";
import type { QemuDisk } from "./qemu-machine.ts";

/** A disk, and the file that is as it was at the save. */
export interface DiskSource {
  readonly disk: QemuDisk;
  readonly path: string;
}

/** @param snapshot the snapshot's file, beside which the copies are @throws UsageError where it is none */
export function diskSource(disk: QemuDisk, snapshot: string | undefined): DiskSource {
  if (disk.copy === undefined) return { disk, path: disk.path };
  const path = snapshot === undefined ? undefined : copyPath(snapshot, disk.copy.file);
  if (path !== undefined) return { disk, path };
  throw new UsageError(
    `the copy of ${disk.device} lies beside the snapshot's file: load it from there, or give --disk NAME=PATH`,
  );
}

/** @throws CompatibilityError that names what has changed since the save */
export function requireSameSources(sources: readonly DiskSource[]): void {
  requireSameDisks({ disks: sources.flatMap(({ disk }) => (disk.copy === undefined ? [disk] : [])) });
  const changed = sources.filter(({ disk: { copy }, path }) => {
    if (copy === undefined) return false;
    // It may have been moved along with its snapshot: it has another inode then.
    const now = fileFacts(path);
    // Where its content is checked, its time is of no interest.
    const isChecked = copy.digest !== undefined || copy.key !== undefined;
    return now.fileBytes !== copy.fileBytes || (!isChecked && now.modifiedNs !== copy.modifiedNs);
  });
  if (changed.length === 0) return;
  const list = changed.map(({ disk, path }) => `the copy of ${disk.device} (${path})`).join(", ");
  throw new CompatibilityError(
    `missing or changed since the save: ${list}. Put it back beside the snapshot, or use --force`,
  );
}
