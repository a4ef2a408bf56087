import { BlkDevice, type BlkIo, DiskImage } from "../../devices/blk/mod.ts";
import { WorkerRings } from "../../src/backend/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { EventLoop } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import { capabilities } from "./capabilities.ts";
import { loggerOf } from "./device-logger.ts";
import { placeOf } from "./place.ts";
import type { RunOptions } from "./run-options.ts";
import { serveDevice } from "./serve-device.ts";

export interface RunBlkOptions extends RunOptions {
  readonly image?: string;
  readonly blkFile?: string;
  readonly readOnly?: boolean;
  readonly id?: string;
  readonly numQueues?: number;
  readonly io?: BlkIo;
  readonly direct?: boolean;
  readonly spinUs?: number;
  readonly workers?: number;
  /** False with --no-lock. */
  readonly lock?: boolean;
}

/** `vhu device run blk`. Returns the exit status. */
export async function runBlk(context: CommandContext, options: RunBlkOptions): Promise<number> {
  if (options.printCapabilities) {
    context.output.line(toJson(capabilities.blk));
    return 0;
  }
  const path = options.image ?? options.blkFile;
  if (path === undefined) throw new UsageError("give the disk's image with --image FILE");
  placeOf(options);
  const { readOnly, direct, id, numQueues = 1, io, lock, spinUs, workers = 1 } = options;
  if (workers > numQueues) {
    throw new UsageError(`${workers} ring Workers need as many queues (--num-queues), not ${numQueues}`);
  }
  const logger = loggerOf(context, options);
  using loop = new EventLoop();
  using image = DiskImage.open(path, { ...(readOnly && { readOnly }), ...(direct && { direct }) });
  const device = new BlkDevice(image, { id, numQueues, io, lock, logger });
  using rings = new WorkerRings(loop, device.ringProgram, {
    workers,
    ...(spinUs === undefined ? {} : { spinUs }),
    logger,
  });
  logger.debug("data path", { io: device.io, direct: direct === true, workers });
  return await serveDevice(context, device, loop, options, rings);
}
