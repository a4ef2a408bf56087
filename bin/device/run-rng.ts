import { RngDevice } from "../../devices/rng/mod.ts";
import { EventLoop } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import { capabilities } from "./capabilities.ts";
import { loggerOf } from "./device-logger.ts";
import { placeOf } from "./place.ts";
import type { RunOptions } from "./run-options.ts";
import { serveDevice } from "./serve-device.ts";

export interface RunRngOptions extends RunOptions {
  readonly maxBytes?: number;
  readonly period?: number;
}

const DEFAULT_PERIOD_MS = 1000;

/** `vhu device run rng`. Returns the exit status. */
export async function runRng(context: CommandContext, options: RunRngOptions): Promise<number> {
  if (options.printCapabilities) {
    context.output.line(toJson(capabilities.rng));
    return 0;
  }
  placeOf(options);
  const { maxBytes, period = DEFAULT_PERIOD_MS } = options;
  using loop = new EventLoop();
  const rateLimit = maxBytes === undefined ? undefined : { bytes: maxBytes, periodMs: period };
  const device = new RngDevice(loop, { rateLimit, logger: loggerOf(context, options) });
  return await serveDevice(context, device, loop, options);
}
