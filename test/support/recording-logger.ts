import type { LogDetails, Logger } from "../../src/logger.ts";

export interface LogLine {
  readonly level: keyof Logger;
  readonly message: string;
  readonly details: LogDetails;
}

/** A logger that keeps what it is told. */
export function recordingLogger(): Logger & { readonly lines: LogLine[] } {
  const lines: LogLine[] = [];
  const at =
    (level: keyof Logger) =>
    (message: string, details: LogDetails = {}) =>
      void lines.push({ level, message, details });
  return { lines, debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
