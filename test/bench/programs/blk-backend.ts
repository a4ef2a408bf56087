/** A vhost-user-blk back-end for measurements: blk-backend.ts SOCKET [IMAGE|null] [spinUs] [workers] [io_uring|direct|inline]. */
import { encodeBlkConfig } from "../../../devices/blk/config.ts";
import {
  DEFAULT_SPIN_US,
  DeviceService,
  type VhostUserDevice,
  WorkerRings,
} from "../../../src/backend/mod.ts";
import { StateError } from "../../../src/errors.ts";
import { EventLoop, O, openFile, sizeOf, UnixListener } from "../../../src/sys/mod.ts";
import { protocolFeature } from "../../../src/wire/mod.ts";
import type { BlkRunnerParameters } from "./blk-runner.ts";

const FEATURES = (1n << 12n) | (1n << 9n);
const NULL_BYTES = 512 << 20;
const [socket, image = "null", spinUs = String(DEFAULT_SPIN_US), workers = "1", mode = ""] =
  process.argv.slice(2);
const file = image === "null" ? undefined : openFile(image, mode === "direct" ? O.RDWR | O.DIRECT : O.RDWR);
const config = {
  capacityBytes: file === undefined ? NULL_BYTES : sizeOf(file),
  writeback: true,
  numQueues: 2,
  blockBytes: 512,
  physicalBlockBytes: 512,
};

function noState(): never {
  throw new StateError("this back-end has no state");
}

const device: VhostUserDevice = {
  deviceType: "blk",
  maxQueues: 2,
  features: FEATURES,
  protocolFeatures: protocolFeature.CONFIG,
  stateVersion: 1,
  oldestCompatibleStateVersion: 1,
  ackFeatures: () => {},
  readConfig: () => encodeBlkConfig(config),
  startQueue: noState,
  startQueueInWorker: (): BlkRunnerParameters => ({ imageFd: file?.number, isInline: mode === "inline" }),
  stopQueue: () => {},
  reset: () => {},
  snapshot: noState,
  beginRestore: noState,
};

const loop = new EventLoop();
const ringWorkers = new WorkerRings(loop, new URL("./blk-runner.ts", import.meta.url), {
  spinUs: Number(spinUs),
  workers: Number(workers),
});
const service = new DeviceService(device, UnixListener.listen(socket!), loop, { ringWorkers });
process.on("SIGTERM", () => loop.stop());
await loop.run();
service[Symbol.dispose]();
ringWorkers[Symbol.dispose]();
