/** A virtio console, and the ends it can have on the host. */
export { BufferEnd } from "./buffer-end.ts";
export { type ConsoleSize, consoleFeature } from "./config.ts";
export type { ConsoleEnd, ConsoleEndEvents, ConsoleInterest } from "./console-end.ts";
export {
  type ControlMessage,
  controlEvent,
  decodeControlMessage,
  encodeControlMessage,
} from "./control-message.ts";
export { ConsoleDevice, type ConsoleOptions } from "./device.ts";
export { FileEnd } from "./file-end.ts";
export { ConsolePort, type ConsolePortOptions } from "./port.ts";
export { PtyEnd } from "./pty-end.ts";
export { SocketEnd } from "./socket-end.ts";
export { StreamEnd } from "./stream-end.ts";
