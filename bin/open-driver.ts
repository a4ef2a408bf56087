import {
  BackendDriver,
  type DiskCare,
  type DiskCopies,
  MachineDriver,
  QemuDriver,
  type VmDriver,
} from "../migrate/mod.ts";
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

/** The machine or back-end behind an address. @throws UsageError, PeerError when nobody is there */
export async function openDriver(
  address: Extract<Address, { kind: "machine" | "unix" | "qmp" }>,
  { type, ...options }: OpenDriverOptions,
): Promise<VmDriver> {
  if (address.kind === "unix") return new BackendDriver(address.path, type);
  if (type !== undefined) throw new UsageError("--type is for unix: addresses; a machine knows its devices");
  if (address.kind === "qmp") {
    return QemuDriver.connect(address.path, { ...options, programs: localPrograms() });
  }
  return new MachineDriver(address.path);
}
