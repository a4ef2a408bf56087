import type { DiskCare } from "../migrate/qemu/mod.ts";
import { UsageError } from "../src/errors.ts";

export const DISKS_OPTION =
  "what becomes of the disks that a QEMU machine can write: include (copied beside the snapshot), overlay (it goes on over overlays) or external (you copy them)";

/** What `--stop` and `--disks` say about a QEMU machine's disks; undefined where they say nothing. @throws UsageError */
export function diskCare(stop: boolean | undefined, disks: string | undefined): DiskCare | undefined {
  switch (disks) {
    case undefined:
      return stop ? "stop" : undefined;
    case "external":
    case "include":
      return disks;
    case "overlay":
      if (stop)
        throw new UsageError("--disks overlay is for a machine that goes on: leave out one of the two");
      return disks;
    default:
      throw new UsageError(`--disks ${disks} is not known: include, overlay and external are`);
  }
}
