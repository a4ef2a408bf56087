/** QEMU machines: their monitor, their stream, and the driver over both. */

export type { DiskChange, PropertyChange } from "./change-arguments.ts";
export { checkCpu } from "./check-cpu.ts";
export { type QemuCoreLayout, qemuCoreLayout } from "./core/core-layout.ts";
export type { BackendStateDecoder } from "./decode/backend-state.ts";
export { type QemuTreeOptions, qemuDeviceTrees } from "./decode/device-trees.ts";
export type { DiskCare } from "./disk-care.ts";
export { qemuDiskPaths } from "./disk-paths.ts";
export { type DiskSource, diskSource, requireSameSources } from "./disk-sources.ts";
export { exportQemuFile, type QemuFileFormat, qemuFileFormats } from "./files/export-stream.ts";
export { type ImportOptions, type ImportResult, importQemuFile } from "./files/import-stream.ts";
export { isQemuFile } from "./files/stream-file.ts";
export { qemuLoadChecks } from "./load-checks.ts";
export { type LoadPlan, type LoadPlanOptions, loadPlan } from "./load-plan.ts";
export { type QemuCommand, qemuCommand } from "./qemu-command.ts";
export { QemuDriver, type QemuDriverOptions } from "./qemu-driver.ts";

export { QemuLaunch } from "./qemu-launch.ts";
export { isQemuMachine, parseQemuMachine, type QemuDisk, type QemuMachine } from "./qemu-machine.ts";
export { shareMemory } from "./share-memory.ts";
export { startQemu } from "./start-qemu.ts";
