import { statSync } from "node:fs";
import type { MachineDisk } from "../driver.ts";
import type { DeviceConfig, MachineConfig } from "../machine-file/mod.ts";

const STAT_BLOCK_BYTES = 512;

/** The disks of a native machine, and whatever else it has outside of itself that is not known here. */
export function nativeDisks({ device }: Pick<MachineConfig, "device">): MachineDisk[] {
  return device.flatMap((each) => {
    switch (each.type) {
      case "blk":
        return [each.image === undefined ? unknown(each, "the disk") : imageDisk(each, each.image)];
      case "fs":
        return [unknown(each, "the files that it shares")];
      default:
        return [];
    }
  });
}

function imageDisk({ name, readonly }: Extract<DeviceConfig, { type: "blk" }>, path: string): MachineDisk {
  const found = statSync(path, { throwIfNoEntry: false });
  const known = { name, path, format: "raw" as const, readOnly: readonly };
  if (found === undefined) {
    return { ...known, virtualBytes: 0, usedBytes: 0, obstacle: "its image is not there any more" };
  }
  const sizes = { virtualBytes: found.size, usedBytes: found.blocks * STAT_BLOCK_BYTES };
  if (found.isFile()) return { ...known, ...sizes };
  return { ...known, ...sizes, obstacle: "it is a block device, and vhu makes files only: share it" };
}

/** The back-end is somebody else's: the machine knows no more than its socket. */
function unknown({ name, socket }: DeviceConfig, what: string): MachineDisk {
  const sizes = { virtualBytes: 0, usedBytes: 0 };
  return {
    ...{ name, path: undefined, format: "raw", readOnly: false, ...sizes },
    obstacle: `vhu does not know where the back-end at ${socket} has ${what}: share that between the hosts, and send without --copy-storage`,
  };
}
