import { BackendDriver, MachineDriver, QemuDriver, type VmDriver } from "../migrate/mod.ts";
import { UsageError } from "../src/errors.ts";
import type { Address } from "./address.ts";

export interface OpenDriverOptions {
  /** `--type`: of a unix: back-end. */
  readonly type?: string | undefined;
  /** `--stop`, `--disks external`: what a QEMU machine writes after the save does no harm. */
  readonly areDisksCared?: boolean | undefined;
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
  if (address.kind === "qmp") return QemuDriver.connect(address.path, options);
  return new MachineDriver(address.path);
}
