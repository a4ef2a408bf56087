/** Machines saved to files and loaded from them. */

export { BackendDriver } from "./backend-driver.ts";
export {
  type BackendCommand,
  identityDifference,
  ProgramIdentities,
  type ProgramIdentity,
  StartedBackends,
} from "./backends/mod.ts";
export * from "./control/mod.ts";
export {
  exportDirectory,
  type ImportDirectoryOptions,
  importDirectory,
  isSnapshotDirectory,
} from "./directory/mod.ts";
export {
  checkDiskCopy,
  copyImage,
  copyPath,
  DiskCopies,
  type StoredDiskCopy,
  unsealDiskCopy,
} from "./disks/mod.ts";
export type {
  DiskOverlay,
  MachineOutline,
  MoveOptions,
  PassReport,
  PrecopyOptions,
  PreflightCheck,
  VmDescription,
  VmDriver,
  VmSink,
  VmSource,
} from "./driver.ts";
export type { HandoverWord } from "./live/mod.ts";
export { type LoadOptions, loadMachine } from "./load.ts";
export { type LoadCheckOptions, loadChecks } from "./load-checks.ts";
export { type LoadNewQemuOptions, loadNewQemu } from "./load-new-qemu.ts";
export * from "./machine/mod.ts";
export * from "./machine-file/mod.ts";
export { NotConvergingError } from "./not-converging-error.ts";
export * from "./operations/mod.ts";
export {
  LocalPrograms,
  OwnSnapshots,
  requireAllowedChain,
  requireAllowedFile,
  requireMayStart,
  type StartPolicy,
  TrustedKeys,
} from "./policy/mod.ts";
export {
  type BackendStateDecoder,
  type DiskCare,
  type DiskChange,
  diskSource,
  exportQemuFile,
  type ImportOptions,
  type ImportResult,
  importQemuFile,
  isQemuFile,
  isQemuMachine,
  type LoadPlan,
  loadPlan,
  type PropertyChange,
  parseQemuMachine,
  QemuDriver,
  type QemuDriverOptions,
  type QemuFileFormat,
  QemuLaunch,
  type QemuMachine,
  type QemuTreeOptions,
  qemuCommand,
  qemuDeviceTrees,
  qemuFileFormats,
  requireSameSources,
  shareMemory,
  startQemu,
} from "./qemu/mod.ts";
export { GuestMemory, sourceWithMemory } from "./ram/mod.ts";
export { assessOperation } from "./recovery.ts";
export { type RewriteOptions, rewriteSnapshot } from "./rewrite.ts";
export { type ChangesBy, requirePassed, type SaveOptions, type SaveResult, saveMachine } from "./save.ts";
