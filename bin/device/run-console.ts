import {
  ConsoleDevice,
  type ConsoleEnd,
  type ConsoleSize,
  FileEnd,
  SocketEnd,
  StreamEnd,
} from "../../devices/console/mod.ts";
import { UsageError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import { EventLoop } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import type { RunOptions } from "./run-options.ts";
import { loggerOf, placeOf, serveDevice } from "./serve-device.ts";

export interface RunConsoleOptions extends RunOptions {
  readonly socketEnd?: string;
  readonly file?: string;
  readonly stdio?: boolean;
  readonly size?: ConsoleSize;
}

/** `vhu device run console`. Returns the exit status. */
export async function runConsole(context: CommandContext, options: RunConsoleOptions): Promise<number> {
  if (options.printCapabilities) {
    context.output.line(toJson({ type: "console", features: [] }));
    return 0;
  }
  placeOf(options);
  // The guest's output is what stdout has then.
  if (options.stdio) context.output.reserveStdout();
  const logger = loggerOf(context, options);
  using loop = new EventLoop();
  using end = openEnd(options, loop, logger);
  const device = new ConsoleDevice(end, { size: options.size, logger });
  return await serveDevice(context, device, loop, options);
}

function openEnd({ socketEnd, file, stdio }: RunConsoleOptions, loop: EventLoop, logger: Logger): ConsoleEnd {
  if ([socketEnd, file, stdio].filter((end) => end !== undefined).length !== 1) {
    throw new UsageError("give the console one end: --socket-end PATH, --file PATH or --stdio");
  }
  if (socketEnd !== undefined) return new SocketEnd(socketEnd, loop, logger);
  if (file !== undefined) return new FileEnd(file, loop, logger);
  return StreamEnd.ofProcess(loop);
}
