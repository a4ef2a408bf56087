/** Virtqueues in shared guest memory: split and packed, the device's side and the driver's, and the inflight region. */
export { Chain } from "./chain.ts";
export {
  createDeviceRing,
  type DeviceRing,
  type DeviceRingOptions,
  type InflightQueue,
} from "./device-ring.ts";
export { type DriverPiece, type IndirectArea, indirectAreaBytes } from "./driver-chain.ts";
export { createDriverRing, type DriverRing, type DriverRingOptions, type UsedChain } from "./driver-ring.ts";
export type { DriverRingState, OutstandingChain } from "./driver-ring-state.ts";
export {
  AliasedInflight,
  type InflightPlace,
  InflightRegion,
  type InflightShape,
  type SharedInflight,
} from "./inflight-region.ts";
export { RingError } from "./ring-error.ts";
export {
  INITIAL_PACKED_BASE,
  type PackedBase,
  packBase,
  type RingLayout,
  unpackBase,
} from "./ring-layout.ts";
