/** QEMU machines: their monitor, their stream, and the driver over both. */

export { qemuCommand } from "./qemu-command.ts";
export { QemuDriver, type QemuDriverOptions } from "./qemu-driver.ts";
export { QemuLaunch } from "./qemu-launch.ts";
export { isQemuMachine } from "./qemu-machine.ts";
