/** The sockets by which machines and devices of vhu's own are controlled. */
export { ControlConnection } from "./control-connection.ts";
export { type ChangedRange, DeviceControlClient } from "./device-control-client.ts";
export {
  type DeviceControlRequest,
  type DeviceStatus,
  type DeviceStatusRequest,
  deviceControlRequest,
} from "./device-control-protocol.ts";
export { type CopiedImage, DiskRounds } from "./disk-rounds.ts";
