import type { DiskCopies } from "../migrate/disks/mod.ts";
import type { VmDriver } from "../migrate/driver.ts";
import type { DiskCare } from "../migrate/qemu/mod.ts";
import { UsageError } from "../src/errors.ts";
import type { Address } from "./address.ts";
import { localPrograms } from "./local-programs.ts";

export interface OpenDriverOptions {
  /** `--type`: of a unix: back-end. */
  readonly type?: string | undefined;
  /** A move: what a QEMU machine writes afterwards does no harm. */
  readonly areDisksCared?: boolean | undefined;
  /** `--stop`, `--disks`: what becomes of the disks that a QEMU machine can write; and where copies go. */
  readonly disks?: DiskCare | undefined;
  readonly copies?: DiskCopies | undefined;
  /** `--force`: a disk that changed since the save is taken. */
  readonly force?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The machine or back-end behind an address. What it needs is loaded only then. @throws UsageError, PeerError when nobody is there */
export async function openDriver(
  address: Extract<Address, { kind: "machine" | "unix" | "qmp" }>,
  { type, ...options }: OpenDriverOptions,
): Promise<VmDriver> {
  if (address.kind === "unix") {
    const { BackendDriver } = await import("../migrate/backend-driver.ts");
    return new BackendDriver(address.path, type);
  }
  if (type !== undefined) throw new UsageError("--type is for unix: addresses; a machine knows its devices");
  if (address.kind === "qmp") {
    const { QemuDriver } = await import("../migrate/qemu/mod.ts");
    return QemuDriver.connect(address.path, { ...options, programs: localPrograms() });
  }
  const { MachineDriver } = await import("../migrate/machine/mod.ts");
  return new MachineDriver(address.path);
}
