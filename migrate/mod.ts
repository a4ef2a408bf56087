/** Machines saved to files and loaded from them. */
export { BackendDriver } from "./backend-driver.ts";
export type {
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
export { type LoadOptions, loadMachine } from "./load.ts";
export { type LoadCheckOptions, loadChecks } from "./load-checks.ts";
export { type LoadNewQemuOptions, loadNewQemu } from "./load-new-qemu.ts";
export * from "./machine/mod.ts";
export { OwnSnapshots, requireMayStart, type StartPolicy, TrustedKeys } from "./policy/mod.ts";
export {
  type BackendStateDecoder,
  isQemuMachine,
  QemuDriver,
  type QemuDriverOptions,
  QemuLaunch,
  type QemuTreeOptions,
  qemuCommand,
  qemuDeviceTrees,
  shareMemory,
  startQemu,
} from "./qemu/mod.ts";
export { GuestMemory, sourceWithMemory } from "./ram/mod.ts";
export { type RewriteOptions, rewriteSnapshot } from "./rewrite.ts";
export { requirePassed, type SaveOptions, type SaveResult, saveMachine } from "./save.ts";
