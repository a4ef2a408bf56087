import { statSync } from "node:fs";
import type { MachineDisk } from "../driver.ts";
import type { QemuDisk, QemuMachine } from "./qemu-machine.ts";
import { qmpBlocks } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";

const SECTOR_BYTES = 512;

interface ImageFacts {
  readonly encrypted?: boolean | undefined;
  readonly snapshots?: readonly unknown[] | undefined;
  readonly "actual-size"?: number | undefined;
}

/** The disks of a QEMU VM, and whatever else it has outside of itself, with what keeps vhu from copying it. */
export async function qemuStorage(client: QmpClient, machine: QemuMachine): Promise<MachineDisk[]> {
  const blocks = await client.request("query-block", { answer: qmpBlocks });
  const disks = machine.disks.map((disk): MachineDisk => {
    const inserted = blocks.find(({ inserted }) => inserted?.["node-name"] === disk.node)?.inserted;
    const image: ImageFacts = disk.node === undefined ? {} : (inserted?.image ?? {});
    const { device: name, path, format, sizeBytes: virtualBytes, readOnly } = disk;
    return {
      ...{ name, path, virtualBytes, readOnly, format: format === "qcow2" ? "qcow2" : "raw" },
      usedBytes: image["actual-size"] ?? disk.fileBytes ?? virtualBytes,
      obstacle: obstacleOf(disk, image),
    };
  });
  return [...disks, ...foreignStorage(machine)];
}

function obstacleOf(disk: QemuDisk, { encrypted, snapshots = [] }: ImageFacts): string | undefined {
  const { path, format, node, files = [], sizeBytes, fileBytes, backend } = disk;
  if (backend !== undefined) {
    return "its back-end, and not QEMU, has it open: share it between the hosts, or let QEMU open it itself";
  }
  if (!["raw", "qcow2"].includes(format)) return `it is ${format}, and vhu copies raw and qcow2`;
  if (node === undefined) return "QEMU has no node of it";
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isFile() !== true) return "it is no file of this host, and vhu makes files only: share it";
  if (encrypted) return "it is encrypted, and a copy would not be";
  if (snapshots.length > 0) {
    return `it has ${snapshots.length} internal snapshots, which a copy would lose: delete them, or share it`;
  }
  if (files.length > 1) {
    return `it stands on other files (${files.slice(1).join(", ")}), or was started with snapshot=on: commit them first`;
  }
  const isPart = format === "raw" && Math.ceil((fileBytes ?? 0) / SECTOR_BYTES) * SECTOR_BYTES !== sizeBytes;
  return isPart ? "it is a part of its file (offset=, size=): share it" : undefined;
}

/** Storage that is behind other processes, and of which vhu knows no file. */
function foreignStorage({ virtioDevices, disks }: QemuMachine): MachineDisk[] {
  const known = new Set(disks.map(({ backend }) => backend));
  return virtioDevices
    .filter(({ type, chardev }) => /^vhost-user-(?:blk|fs|scsi)/.test(type) && !known.has(chardev ?? ""))
    .map(({ type, path }) => ({
      ...{ name: `${type} ${path}`, path: undefined, format: "raw" as const, readOnly: false },
      ...{ virtualBytes: 0, usedBytes: 0 },
      obstacle: type.includes("-fs")
        ? "vhu does not copy the files that it shares: share them between the hosts, and send without --copy-storage"
        : "vhu does not know what its back-end has: share that between the hosts, and send without --copy-storage",
    }));
}
