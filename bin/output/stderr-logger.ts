import type { LogDetails, Logger } from "../../src/logger.ts";
import { toJson } from "./json.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

const RANK: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2, error: 3 };

export interface StderrLoggerOptions {
  readonly format: "text" | "json";
  /** Less important lines are dropped. */
  readonly level: LogLevel;
  /** Takes one line with its newline. */
  write(text: string): void;
}

/** Logs as lines of text, or as JSON lines `{"type":"log","time","level","message",…details}`. */
export function createStderrLogger({ format, level, write }: StderrLoggerOptions): Logger {
  const at = (rank: LogLevel) => (message: string, details?: LogDetails) => {
    if (RANK[rank] < RANK[level]) return;
    const time = new Date().toISOString();
    if (format === "json") write(`${toJson({ type: "log", time, level: rank, message, ...details })}\n`);
    else write(`${time} ${rank.padEnd(5)} ${message}${fieldsOf(details)}\n`);
  };
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

function fieldsOf(details: LogDetails = {}): string {
  const fields = Object.entries(details).filter(([, value]) => value !== undefined);
  return fields
    .map(([key, value]) => ` ${key}=${typeof value === "string" ? value : toJson(value)}`)
    .join("");
}
