/** A virtio network device, and the ends that it can have. */
export { netFeature } from "./config.ts";
export { NetDevice, type NetOptions } from "./device.ts";
export { LoopbackEnd } from "./loopback-end.ts";
export { parseMac } from "./mac-address.ts";
export type { NetEnd } from "./net-end.ts";
export { StreamEnd } from "./stream-end.ts";
export { TapEnd } from "./tap-end.ts";
