import { accessSync, constants, lstatSync, statfsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { PreflightCheck } from "../driver.ts";
import { type ImageOutline, NewImage } from "../storage/mod.ts";
import { fileBytesOf, lookAtDisk } from "./disk-markers.ts";
import type { Offer } from "./messages.ts";

type OfferedDisk = Offer["disks"][number];
type Copy = NonNullable<OfferedDisk["copy"]>;

export interface DiskPolicy {
  /** The largest disk. */
  readonly diskMaxBytes?: number | undefined;
  /** Whether a file may be there. */
  isAllowed(path: string): boolean;
  /** Another machine that is arriving and has this disk. */
  writerOf(path: string): string | undefined;
}

export interface DiskPlan {
  readonly checks: readonly PreflightCheck[];
  /** The images that have to be made here. */
  readonly copies: readonly ImageOutline[];
}

/**
 * Which of a machine's disks are here, which would be copied here, and whether they may and can. The disks are those of the
 * machine itself; what the offer says about them is only how they are there.
 */
export function planDisks(
  paths: readonly string[],
  offered: readonly OfferedDisk[],
  policy: DiskPolicy,
): DiskPlan {
  const checks: PreflightCheck[] = [];
  const copies: ImageOutline[] = [];
  const space = new Space();
  const add = (found: Omit<PreflightCheck, "name">) => void checks.push({ name: "disk", ...found });
  for (const path of paths) {
    const disks = offered.filter((disk) => disk.path === path);
    const [disk] = disks;
    const refusal = refusalOf(path, disks, policy);
    if (disk === undefined || refusal !== undefined) add({ ok: false, detail: refusal ?? path });
    else if (disk.copy === undefined || isThere(path)) add(lookAtPresent(disk));
    else {
      const { format, virtualBytes } = disk.copy;
      copies.push({ path, format, virtualBytes });
      add(lookAtPlace(path, disk.copy, space));
    }
  }
  for (const { path } of offered.filter((disk) => !paths.includes(disk.path)))
    add({ ok: false, detail: `${path} was offered, and the machine does not use it` });
  return { checks, copies };
}

function refusalOf(
  path: string,
  offered: readonly OfferedDisk[],
  { diskMaxBytes = Number.POSITIVE_INFINITY, isAllowed, writerOf }: DiskPolicy,
): string | undefined {
  // Nobody learns from here which other files this host has.
  if (!isAllowed(path)) return `${path} is outside of what --root allows`;
  const [disk] = offered;
  if (disk === undefined || offered.length > 1)
    return `the machine uses ${path}, and it was offered ${offered.length} times`;
  const writer = writerOf(path);
  if (writer !== undefined) return `${path} is a disk of ${writer}, which is arriving`;
  const size = Math.max(disk.sizeBytes, disk.copy?.virtualBytes ?? 0, fileBytesOf(path) ?? 0);
  return size > diskMaxBytes ? `${path} has ${size} bytes; ${diskMaxBytes} may arrive` : undefined;
}

/** A file of its name: used as it is where it is the same storage, or an equal disk that nobody writes to. */
function lookAtPresent(disk: OfferedDisk): Omit<PreflightCheck, "name"> {
  const { path, sizeBytes, copy } = disk;
  const found = lookAtDisk(disk);
  if (copy === undefined) return found;
  const isProven = found.ok && disk.marker !== undefined;
  if (isProven) return found;
  if (copy.readOnly && fileBytesOf(path) === sizeBytes) {
    return { ok: true, detail: `${path} is here and of the same size; it is only read, and is not copied` };
  }
  return {
    ok: false,
    detail: `${path} is here, and was not found to be the same storage: vhu never writes over a file; move it away, or share it`,
  };
}

function lookAtPlace(
  path: string,
  { format, virtualBytes, usedBytes }: Copy,
  space: Space,
): Omit<PreflightCheck, "name"> {
  const most = NewImage.maxBytes(format);
  if (virtualBytes > most) {
    return {
      ok: false,
      detail: `${path} has ${virtualBytes} bytes; ${most} is the most for a copy in ${format}`,
    };
  }
  const folder = dirname(path);
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch {
    return { ok: false, detail: `${path}: its folder is not here, or cannot be written` };
  }
  const free = space.take(folder, usedBytes);
  if (free >= 0) {
    const size = `${virtualBytes} bytes, ${usedBytes} of them in use`;
    return { ok: true, detail: `${path} will be copied, as ${format}: ${size}` };
  }
  return {
    ok: false,
    detail: `${path} needs ${usedBytes} bytes, which is ${-free} more than are free in ${folder}`,
  };
}

/** What is free on each file system, less what the disks before have taken. */
class Space {
  readonly #free = new Map<number, number>();

  /** Returns what is left; below zero, what is missing. */
  take(folder: string, sizeBytes: number): number {
    const { dev } = statSync(folder);
    const { bavail, bsize } = statfsSync(folder);
    const left = (this.#free.get(dev) ?? bavail * bsize) - sizeBytes;
    this.#free.set(dev, left);
    return left;
  }
}

/** A link that leads nowhere is there, too. */
function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
