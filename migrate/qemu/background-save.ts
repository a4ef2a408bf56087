import { CompatibilityError } from "../../src/errors.ts";
import { type DiskCare, writableDisks } from "./disk-care.ts";
import type { MigrationOverrides } from "./migration-settings.ts";
import type { QemuMachine } from "./qemu-machine.ts";

/** QEMU goes on by itself before the stream ends, so it needs no way back, and takes none. */
export const backgroundSettings: MigrationOverrides = {
  capabilities: { "background-snapshot": true, "return-path": false },
};

/**
 * Whether what is read while the VM runs can be of one moment. QEMU holds up its own writes to memory until the page was
 * read (userfaultfd); those of another process it does not see.
 * @throws CompatibilityError with the reason
 */
export function requireBackgroundFit(machine: QemuMachine, care: DiskCare | undefined): void {
  const { virtioDevices, backends = [] } = machine;
  const outside = [
    ...virtioDevices.filter(({ type }) => /^vhost-/.test(type)).map(({ type, path }) => `${type} ${path}`),
    ...backends.map(({ type, chardev }) => `the ${type} back-end of ${chardev}`),
  ];
  const [first] = outside;
  if (first !== undefined) {
    throw new CompatibilityError(
      `${first} writes to the guest's memory in another process, which a background snapshot would tear: save with --live, or without`,
    );
  }
  if (care === "overlay" || care === "include") {
    throw new CompatibilityError(
      `--disks ${care} needs a VM that stands still at the end, which a background snapshot does not: save with --live, or without`,
    );
  }
  if (care === "stop") {
    throw new CompatibilityError(
      "a VM that ends with its save need not run meanwhile: save without --background",
    );
  }
  // A VM that could write to a disk was refused before, unless the user copies it.
  if (care === undefined && writableDisks(machine).length > 0) {
    throw new CompatibilityError("the VM goes on and writes to its disks: save with --disks external");
  }
}
