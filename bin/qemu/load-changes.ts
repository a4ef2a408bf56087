import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { DiskChange, PropertyChange, QemuMachine } from "../../migrate/qemu/mod.ts";
import { UsageError } from "../../src/errors.ts";

type QemuDisk = QemuMachine["disks"][number];

/** A disk of the machine that gets another file. */
export interface GivenDisk extends DiskChange {
  readonly disk: QemuDisk;
  readonly backend?: string | undefined;
}

/** `--disk NAME=PATH[,format=FORMAT]`. @throws UsageError that names the machine's disks */
export function givenDisks(texts: readonly string[], { disks }: Pick<QemuMachine, "disks">): GivenDisk[] {
  return texts.map((text) => {
    const [, name, file, format] = /^([^=]+)=(.+?)(?:,format=(raw|qcow2))?$/.exec(text) ?? [];
    if (name === undefined || file === undefined) {
      throw new UsageError(`--disk ${text} is not of the form NAME=PATH or NAME=PATH,format=qcow2`);
    }
    const disk = disks.find((candidate) => namesOf(candidate).includes(name));
    if (disk === undefined) {
      const known = disks.map((each) => namesOf(each)[0]).join(", ");
      throw new UsageError(
        `--disk ${name}: the snapshot has no such disk (${known === "" ? "it has none" : known})`,
      );
    }
    const path = resolve(file);
    if (statSync(path, { throwIfNoEntry: false }) === undefined) {
      throw new UsageError(`--disk ${name}: there is no ${path}`);
    }
    return changeOf(disk, path, format ?? disk.format);
  });
}

export function changeOf(disk: QemuDisk, path: string, format: string): GivenDisk {
  return { disk, backend: disk.backend, from: disk.files ?? [disk.path], path, format };
}

/** "/machine/peripheral/disk0/virtio-backend" is "disk0" for people. */
function namesOf({ device, drive, node, path }: QemuDisk): string[] {
  const id = /^\/machine\/peripheral\/([^/]+)/.exec(device)?.[1];
  return [id, drive, node, device, path].filter((name) => name !== undefined);
}

/** `--set ID.KEY=VALUE`. A key may have dots, an id has none. @throws UsageError */
export function givenProperties(texts: readonly string[]): PropertyChange[] {
  return texts.map((text) => {
    const [, id, key, value] = /^([^.=]+)\.([^=]+)=(.*)$/s.exec(text) ?? [];
    if (id !== undefined && key !== undefined && value !== undefined) return { id, key, value };
    throw new UsageError(`--set ${text} is not of the form ID.KEY=VALUE, e.g. c1.shared-dir=/srv/other`);
  });
}
