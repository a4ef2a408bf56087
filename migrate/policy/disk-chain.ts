import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import { CompatibilityError } from "../../src/errors.ts";
import { MAX_DISK_CHAIN } from "../../src/limits.ts";
import { isAllowedPath, type PathPolicy } from "./allowed-path.ts";
import { MAX_QCOW2_CLUSTER_BYTES, parseQcow2References } from "./qcow2-header.ts";

/** A disk's file, and what it is to be read as. What is in it never decides that: a guest may write "QFI\xfb" on a raw disk. */
export interface DiskFile {
  readonly path: string;
  readonly format: string;
}

/**
 * An image may name others that QEMU then opens with it: each of them must lie where the image itself may. What this user
 * recorded ("/"), or gave on the command line, stands on what it likes.
 *
 * @throws CompatibilityError POLICY that names the file; FormatError for an image that is damaged
 */
export function requireAllowedChain(disk: DiskFile, policy: PathPolicy): void {
  if (policy.roots.includes("/") || policy.given?.has(disk.path) || policy.made?.has(disk.path)) return;
  const seen = new Set<string>();
  const left: DiskFile[] = [disk];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    // A raw image names nothing.
    if (next.format === "raw") continue;
    if (next.format !== "qcow2") throw refusal(disk, `${next.path} is of the format ${next.format}`);
    const { bytes, identity } = firstCluster(disk, next.path);
    if (seen.has(identity)) throw refusal(disk, `it stands on itself, by way of ${next.path}`);
    seen.add(identity);
    if (seen.size > MAX_DISK_CHAIN) throw refusal(disk, `it stands on more than ${MAX_DISK_CHAIN} others`);
    left.push(...referencesOf(disk, next.path, bytes, policy));
  }
}

function referencesOf(disk: DiskFile, path: string, bytes: Uint8Array, policy: PathPolicy): DiskFile[] {
  const { backing, dataFile } = parseQcow2References(bytes);
  const below: DiskFile[] = [];
  if (dataFile !== undefined) below.push({ path: placeOf(disk, path, dataFile, policy), format: "raw" });
  if (backing !== undefined) {
    const { name, format } = backing;
    const to = placeOf(disk, path, name, policy);
    if (format === undefined) {
      // QEMU would look into it, where a guest may have written what it likes.
      throw refusal(disk, `${path} does not say what format ${to} has: qemu-img rebase -u -b FILE -F FORMAT`);
    }
    below.push({ path: to, format });
  }
  return below;
}

/**
 * Where QEMU finds what a name in an image means: a relative one in the image's folder. ".." is followed after all links, so it
 * is understood only at the beginning, where the folder is one without links.
 */
function placeOf(disk: DiskFile, image: string, name: string, policy: PathPolicy): string {
  const isClimbing = name
    .replace(/^(?:\.\.\/)+/, "")
    .split("/")
    .includes("..");
  const path = name.startsWith("/") ? name : join(realpathSync(dirname(image)), name);
  if (!isClimbing && isAllowedPath(path, policy)) return path;
  throw refusal(disk, `${image} stands on ${name}, which is no file in an allowed folder`);
}

function firstCluster(disk: DiskFile, path: string) {
  let fd: number;
  try {
    // A pipe would not be waited for.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    throw refusal(disk, `${path} cannot be read here: ${(cause as Error).message}`);
  }
  try {
    const facts = fstatSync(fd, { bigint: true });
    if (!facts.isFile() && !facts.isBlockDevice()) throw refusal(disk, `${path} is no file`);
    const bytes = new Uint8Array(MAX_QCOW2_CLUSTER_BYTES);
    let sizeBytes = 0;
    for (let count = -1; count !== 0 && sizeBytes < bytes.length; sizeBytes += count) {
      count = readSync(fd, bytes, sizeBytes, bytes.length - sizeBytes, sizeBytes);
    }
    return { bytes: bytes.subarray(0, sizeBytes), identity: `${facts.dev}:${facts.ino}` };
  } finally {
    closeSync(fd);
  }
}

function refusal({ path }: DiskFile, why: string): CompatibilityError {
  return new CompatibilityError(`the disk ${path} is not used: ${why}`, {}, "POLICY");
}
