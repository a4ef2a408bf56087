/** A virtio entropy source, from getrandom(2). */
export { RngDevice, type RngOptions } from "./device.ts";
