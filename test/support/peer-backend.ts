import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { connectUnix, type UnixSocket } from "../../src/sys/mod.ts";

export interface PeerBackend extends AsyncDisposable {
  readonly process: Subprocess;
  readonly socketPath: string;
  /** Waits until it listens, and connects. A one-shot back-end (virtiofsd) takes one connection in its life. */
  connect(): Promise<UnixSocket>;
  /** Waits until it listens, without connecting. */
  listening(): Promise<void>;
  stderr(): string;
  /** SIGKILL, by its pid; waits for its end. Safe to call twice. */
  kill(): Promise<void>;
}

export interface PeerBackendOptions {
  /** Folder for the socket and the log; short, since a socket's path has at most 107 bytes. */
  readonly dir: string;
  /** Names the files in `dir`. */
  readonly name: string;
  /** The command line, given the socket's path. */
  command(socketPath: string): readonly string[];
}

const START_TIMEOUT_MS = 20_000;
const POLL_MS = 10;
/** SO_ACCEPTCON in the Flags column of /proc/net/unix: it listens. */
const LISTENING_FLAGS = "00010000";

/** Starts a back-end that belongs to others. It ends with this process at the latest. */
export function startPeerBackend({ dir, name, command }: PeerBackendOptions): PeerBackend {
  const socketPath = join(dir, `${name}.sock`);
  const logPath = join(dir, `${name}.log`);
  rmSync(socketPath, { force: true });
  const log = openSync(logPath, "w");
  const process = Bun.spawn({
    // setpriv makes the kernel end it even when the test run itself is killed.
    cmd: ["setpriv", "--pdeathsig", "KILL", "--", ...command(socketPath)],
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  const stderr = () => readFileSync(logPath, "utf8");
  const kill = async () => {
    if (process.exitCode === null && process.signalCode === null) process.kill("SIGKILL");
    await process.exited;
  };
  const listening = async () => {
    const end = performance.now() + START_TIMEOUT_MS;
    while (!isListening(socketPath)) {
      if (process.exitCode !== null || performance.now() > end) {
        throw new Error(`${name} does not listen (exit ${process.exitCode}): ${stderr()}`);
      }
      await Bun.sleep(POLL_MS);
    }
  };
  return {
    process,
    socketPath,
    listening,
    stderr,
    kill,
    async connect() {
      await listening();
      return connectUnix(socketPath);
    },
    [Symbol.asyncDispose]: kill,
  };
}

/** Asked of the kernel: a connection would end a one-shot back-end. */
function isListening(socketPath: string): boolean {
  return readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .some((line) => line.endsWith(` ${socketPath}`) && line.split(/\s+/)[3] === LISTENING_FLAGS);
}
