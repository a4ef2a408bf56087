/** QEMU machines: their monitor, their stream, and the driver over both. */
export { QemuDriver, type QemuDriverOptions } from "./qemu-driver.ts";
export { isQemuMachine } from "./qemu-machine.ts";
