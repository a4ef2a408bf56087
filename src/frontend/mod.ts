/** The front-end side: drive a back-end as a virtio device, and move its state. */
export { BackendClient, type InflightBuffer, type SharedRegion } from "./backend-client.ts";
export { DEVICE_TYPE_FEATURES, type DeviceType, type DeviceTypeName, deviceTypes } from "./device-types.ts";
export { type BackendRequestHandler, FrontendServer } from "./frontend-server.ts";
export { Interrupt } from "./interrupt.ts";
export { type ReconnectOptions, reconnect } from "./reconnect.ts";
export { readStateStream, type StreamOptions, writeStateStream } from "./state-stream.ts";
export { loadDeviceState, saveDeviceState, type TransferOptions } from "./state-transfer.ts";
export {
  baseFeatures,
  FRONTEND_PROTOCOL_FEATURES,
  type FrontendOptions,
  VhostUserFrontend,
} from "./vhost-user-frontend.ts";
export type { QueueSetup, SharedMemoryRegionInfo, VirtioDevice } from "./virtio-device.ts";
