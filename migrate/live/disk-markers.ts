/**
 * Whether a path is the same storage on two hosts: the sender leaves an empty file of a random name beside each disk, and the
 * receiver looks for it.
 */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseMachineConfig } from "../machine-file/mod.ts";
import { isQemuMachine, parseQemuMachine, qemuDiskPaths } from "../qemu/mod.ts";
import type { Offer } from "./messages.ts";

export type OfferedDisk = Offer["disks"][number];

const MARKER = /^\.vhu-same-[0-9a-f]{32}$/;

/**
 * The files of a machine's disks, by what will be started for it, and by what QEMU says: a disk may be that of a back-end.
 * @throws FormatError, CompatibilityError for a machine of a form that is not known
 */
export function diskPathsOf(machine: Readonly<Record<string, unknown>>): string[] {
  if (isQemuMachine(machine)) {
    const told = parseQemuMachine(machine).disks.map(({ path }) => path);
    return [...new Set([...qemuDiskPaths(machine), ...told])];
  }
  const { device } = parseMachineConfig(machine, "machine");
  const images = device.flatMap((each) =>
    each.type === "blk" && each.image !== undefined ? [each.image] : [],
  );
  return [...new Set(images)];
}

/** Disks with their markers, which go away when this is disposed of. */
export class DiskMarkers implements Disposable {
  readonly disks: readonly OfferedDisk[];
  readonly #files: string[] = [];

  constructor(paths: readonly string[]) {
    this.disks = [...new Set(paths)].map((path) => this.#mark(path));
  }

  [Symbol.dispose](): void {
    for (const file of this.#files) rmSync(file, { force: true });
  }

  #mark(path: string): OfferedDisk {
    const marker = `.vhu-same-${randomBytes(16).toString("hex")}`;
    const sizeBytes = fileBytesOf(path) ?? 0;
    try {
      const file = join(dirname(path), marker);
      closeSync(openSync(file, "wx", 0o600));
      this.#files.push(file);
      return { path, sizeBytes, marker };
    } catch {
      // A folder that cannot be written: the size is all there is to compare.
      return { path, sizeBytes };
    }
  }
}

/** What the receiver finds at an offered disk's path. */
export function lookAtDisk({ path, sizeBytes, marker }: OfferedDisk): {
  readonly ok: boolean;
  readonly detail: string;
} {
  const here = fileBytesOf(path);
  if (here === undefined) return { ok: false, detail: `${path} is not here: share it between the hosts` };
  if (here !== sizeBytes)
    return { ok: false, detail: `${path} has ${here} bytes here and ${sizeBytes} there` };
  if (marker === undefined)
    return {
      ok: true,
      detail: `${path} is here and of the same size; whether it is the same was not to be found out`,
    };
  if (MARKER.test(marker) && basename(marker) === marker && existsSync(join(dirname(path), marker))) {
    return { ok: true, detail: `${path} is the same storage here` };
  }
  return { ok: false, detail: `${path} is here, but is not the same storage: share it between the hosts` };
}

export function fileBytesOf(path: string): number | undefined {
  try {
    return statSync(path).size;
  } catch {
    return undefined;
  }
}
