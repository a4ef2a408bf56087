/** The back-end side: serve a device to a front-end. */

/** What a device meets in `snapshot` and `beginRestore`. */
export type { StateHeader, StateSection } from "../state/mod.ts";
export type { Backend, ConfigRange, InflightWithFd, RegionWithFd, StateDirection } from "./backend.ts";
export { BackendServer } from "./backend-server.ts";
export { BackendSession, type SessionEnd } from "./backend-session.ts";
export type { DeviceRestore, QueueRunner, SharedMemoryRegion, VhostUserDevice } from "./device.ts";
export { DeviceQueue } from "./device-queue.ts";
export { DeviceRequestHandler, type HandlerOptions } from "./device-request-handler.ts";
export { DeviceService } from "./device-service.ts";
export type { DeviceStateOptions } from "./device-state-transfer.ts";
export { FrontendClient } from "./frontend-client.ts";
export { ServedSessions, type ServeOptions } from "./served-sessions.ts";
export { HANDLER_FEATURES, Session } from "./session.ts";
export { type MappingSource, SharedMemoryMapper } from "./shared-memory-mapper.ts";
export { type SpoolOptions, StateSpool } from "./state-spool.ts";
export { IncomingPump, OutgoingPump, type PumpEnd } from "./stream-pump.ts";
export type { CreateRunner, RingRunner } from "./worker/ring-program.ts";
export {
  DEFAULT_SPIN_US,
  type WorkerRingStart,
  WorkerRings,
  type WorkerRingsOptions,
} from "./worker/worker-rings.ts";
