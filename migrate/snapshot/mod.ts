/** The snapshot container (.vhu): docs/snapshot-format.md. */
export {
  type CompressionBackend,
  compressionBackend,
  createZstd,
  frameBoundBytes,
  type Zstd,
} from "./compression.ts";
export type { CoreLayout, CoreSegment } from "./core-file.ts";
export { coreNote, threadNote } from "./core-note.ts";
export { diffMemory, type MemoryRange } from "./diff-memory.ts";
export { expectModest } from "./expect-modest.ts";
export type { Extent, ExtentKind, Frame } from "./extent.ts";
export { extractCore, extractDevice, extractRegion, extractStream } from "./extract.ts";
export { FileInput } from "./file-input.ts";
export { systemCall, writeAll } from "./file-io.ts";
export { type Credentials, describeKeys, type EncryptTo, type NewFileKey, newFileKey } from "./file-keys.ts";
export { type HeaderFields, headerFieldsOf, SNAPSHOT_MAGIC, SNAPSHOT_VERSION } from "./header.ts";
export type { MemoryStats, StreamEntry } from "./index-table.ts";
export {
  MEMORY_PAGE_BYTES,
  parseHeader,
  parseManifest,
  parseMemoryMap,
  type SnapshotDevice,
  type SnapshotHeader,
  type SnapshotManifest,
  type SnapshotRegion,
} from "./manifest.ts";
export { OutputFile } from "./output-file.ts";
export type { ParentLink } from "./parent-link.ts";
export { type RecordEntry, RecordFlag, RecordType, recordTypeName } from "./record.ts";
export { type SalvagedSnapshot, type SalvagedStream, salvageSnapshot } from "./salvage.ts";
export { claimedSigner, readSigner, type Signer, signSnapshot } from "./signature.ts";
export { type MemoryPiece, type OpenOptions, type RecordListing, SnapshotReader } from "./snapshot-reader.ts";
export { type SnapshotSummary, SnapshotWriter, type WriterOptions } from "./snapshot-writer.ts";
export { type SpooledPipe, spoolPipe } from "./spool-pipe.ts";
export { removeLeftovers } from "./temporary-name.ts";
export { type LockedSnapshot, lockedSnapshot, unlockSnapshot } from "./unlock.ts";
export type { VerifyOptions, VerifyProblem, VerifyResult } from "./verify.ts";
export { verifyLocked } from "./verify-locked.ts";
export { verifySnapshot } from "./verify-snapshot.ts";
export { zeroRuns } from "./zero-runs.ts";
