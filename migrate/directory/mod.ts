/** Snapshots as directories of plain files, for editors and scripts. */
export { exportDirectory } from "./export-directory.ts";
export { type ImportDirectoryOptions, importDirectory, isSnapshotDirectory } from "./import-directory.ts";
