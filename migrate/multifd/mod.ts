/** QEMU's multifd: memory that comes through sockets of its own, in packets. Small, since Workers load it. */
export { ChannelReader } from "./channel-reader.ts";
export type { PageChannels } from "./page-channels.ts";
