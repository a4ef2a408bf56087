import type { SnapshotHeader, SnapshotManifest, SnapshotRegion } from "../snapshot/mod.ts";

/** The file of a directory that says what the others are. */
export const DESCRIPTION_FILE = "snapshot.json";
export const DIRECTORY_FORMAT = "vhu-snapshot-directory";
export const DIRECTORY_VERSION = 1;

/** What stands in it: the parts of a snapshot that are JSON there, too. */
export interface DirectoryDescription {
  readonly format: typeof DIRECTORY_FORMAT;
  readonly version: number;
  readonly header: SnapshotHeader;
  readonly manifest: SnapshotManifest;
  readonly memoryMap: { readonly regions: readonly SnapshotRegion[] };
}

/** Names are made of numbers: a name from a file would be a path of its author's choice. */
export const fileNames = {
  region: (id: number) => `memory-${id}.bin`,
  device: (id: number) => `device-${id}.state`,
  qemuStream: "qemu-stream.bin",
  machineState: "machine-state.bin",
} as const;
