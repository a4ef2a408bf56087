import type { Logger } from "../../src/logger.ts";
import type { CommandContext } from "../command.ts";
import { createStderrLogger } from "../output/stderr-logger.ts";
import { isBrokenPipe, writeFully } from "../output/write-fully.ts";
import type { RunOptions } from "./run-options.ts";

const STDERR = 2;

/** The logger that a device's options ask for. */
export function loggerOf({ output }: CommandContext, options: RunOptions): Logger {
  return createStderrLogger({
    format: output.json ? "json" : options.logFormat,
    level: output.debug ? "debug" : options.logLevel,
    write: (text) => {
      try {
        writeFully(STDERR, text);
      } catch (error) {
        // Whoever reads the log may end; a guest's disk does not end with it.
        if (!isBrokenPipe(error)) throw error;
      }
    },
  });
}
