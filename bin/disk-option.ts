import { UsageError } from "../src/errors.ts";

/** What `--stop` and `--disks` say about a QEMU machine's disks. @throws UsageError */
export function areDisksCared(stop: boolean | undefined, disks: string | undefined): boolean {
  if (disks !== undefined && disks !== "external") {
    throw new UsageError(`--disks ${disks} is not known: external is (you copy the disks yourself)`);
  }
  return (stop ?? false) || disks === "external";
}
