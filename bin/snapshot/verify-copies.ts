import { checkDiskCopy, copyPath, isQemuMachine, parseQemuMachine } from "../../migrate/mod.ts";
import type { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { VhuError } from "../../src/errors.ts";

/** A copy of a disk that belongs to a snapshot. */
export interface VerifiedCopy {
  readonly device: string;
  readonly path: string;
  readonly ok: boolean;
  /** What is wrong with it. */
  readonly message?: string | undefined;
}

/** Reads the copies of disks beside a QEMU machine's snapshot, and compares them with what it says of them. */
export async function verifyCopies(
  { manifest }: SnapshotReader,
  file: string,
  signal: AbortSignal,
): Promise<VerifiedCopy[]> {
  if (!isQemuMachine(manifest.machine)) return [];
  const verified: VerifiedCopy[] = [];
  for (const { device, copy } of parseQemuMachine(manifest.machine).disks) {
    if (copy === undefined) continue;
    const path = copyPath(file, copy.file);
    if (path === undefined) {
      verified.push({ device, path: copy.file, ok: false, message: "its name leads elsewhere" });
      continue;
    }
    try {
      await checkDiskCopy(path, copy, { signal });
      verified.push({ device, path, ok: true });
    } catch (error) {
      if (!(error instanceof VhuError) || signal.aborted) throw error;
      verified.push({ device, path, ok: false, message: error.message });
    }
  }
  return verified;
}
