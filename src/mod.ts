/** What everything else of vhu's public API builds on: errors, the logger's shape, and the loop that drives devices. */
export * from "./errors.ts";
export { type LogDetails, type Logger, silentLogger } from "./logger.ts";
export { connectUnix, EventLoop, Fd, UnixListener, UnixSocket } from "./sys/mod.ts";
