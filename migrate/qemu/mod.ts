/** QEMU machines: their monitor, their stream, and the driver over both. */

export type { BackendStateDecoder } from "./decode/backend-state.ts";
export { type QemuTreeOptions, qemuDeviceTrees } from "./decode/device-trees.ts";
export { qemuLoadChecks } from "./load-checks.ts";
export { type QemuCommand, qemuCommand } from "./qemu-command.ts";
export { QemuDriver, type QemuDriverOptions } from "./qemu-driver.ts";
export { QemuLaunch } from "./qemu-launch.ts";
export { isQemuMachine } from "./qemu-machine.ts";
export { shareMemory } from "./share-memory.ts";
export { startQemu } from "./start-qemu.ts";
