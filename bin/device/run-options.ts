import { type Command, Option } from "commander";
import type { LogLevel } from "../output/stderr-logger.ts";
import { wholeNumber } from "../whole-number.ts";

/** The options that every `vhu device run TYPE` has. */
export interface RunOptions {
  readonly socket?: string;
  readonly socketPath?: string;
  readonly connect?: string;
  readonly connectTimeoutMs?: number;
  readonly fd?: number;
  readonly control?: string;
  readonly controlFd?: number;
  /** False with --no-sandbox. */
  readonly sandbox: boolean;
  readonly once?: boolean;
  readonly printCapabilities?: boolean;
  readonly untrustedPeer?: boolean;
  readonly stateIdleTimeoutMs?: number;
  readonly logLevel: LogLevel;
  readonly logFormat: "text" | "json";
}

/** Where the front-end is: one of these is asked for. */
export function addRunOptions(command: Command): Command {
  return command
    .option("--socket <path>", "listen for front-ends at this UNIX socket")
    .option("--socket-path <path>", "the same")
    .option("--connect <path>", "connect to a front-end that listens at this UNIX socket")
    .option(
      "--connect-timeout-ms <ms>",
      "how long to try, at the start and after each session (default: 30000)",
      wholeNumber(1),
    )
    .option(
      "--fd <number>",
      "serve the socket, connected or listening, that the parent process passes as this fd",
      wholeNumber(0),
    )
    .option("--control <path>", "listen here for vhu device status, suspend, resume and copy")
    .option(
      "--control-fd <number>",
      "a connected control socket, which the parent process passes as this fd",
      wholeNumber(0),
    )
    .option("--no-sandbox", "do not confine the process to the files and sockets that it needs")
    .option("--once", "end when the first front-end has gone")
    .option("--print-capabilities", "print what this back-end can do, as JSON, and end")
    .option("--untrusted-peer", "refuse guest memory that the front-end could still shrink")
    .option(
      "--state-idle-timeout-ms <ms>",
      "give up a state transfer that stands still for so long (default: 30000)",
      wholeNumber(1),
    )
    .addOption(
      new Option("--log-level <level>", "what to log")
        .choices(["debug", "info", "warn", "error"])
        .default("info"),
    );
}
