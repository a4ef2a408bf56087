import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { PeerError } from "../../src/errors.ts";
import { Deadline, eventLoopTurn } from "../../src/sys/mod.ts";
import { MachineDriver } from "./machine-driver.ts";

const START_TIMEOUT_MS = 15_000;
const LOG_TAIL_CHARACTERS = 2_000;

/**
 * A machine's process of its own: in its own session, its output in a log file, so that it outlives whoever started it.
 * Until `release` it ends when this object is disposed of.
 */
export class MachineProcess implements Disposable {
  #released = false;

  private constructor(
    readonly child: ChildProcess,
    readonly socketPath: string,
    readonly logPath: string,
  ) {}

  /**
   * Starts `vhu machine run` with the arguments.
   * @param vhu the command that is vhu
   */
  static start(
    vhu: readonly string[],
    args: readonly string[],
    socketPath: string,
    logPath = `${socketPath}.log`,
  ): MachineProcess {
    const log = openSync(logPath, "a", 0o600);
    try {
      const [command, ...before] = vhu;
      const child = spawn(command!, [...before, "machine", "run", ...args], {
        detached: true,
        stdio: ["ignore", log, log],
      });
      return new MachineProcess(child, socketPath, logPath);
    } finally {
      closeSync(log);
    }
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Waits until the control socket answers. @throws PeerError with the end of the log when the process ends before */
  async connect(signal?: AbortSignal): Promise<MachineDriver> {
    const deadline = new Deadline(START_TIMEOUT_MS);
    for (;;) {
      signal?.throwIfAborted();
      try {
        return new MachineDriver(this.socketPath);
      } catch (error) {
        if (!(error instanceof PeerError && error.reconnect)) throw error;
        if (this.child.exitCode !== null || this.child.signalCode !== null || deadline.expired) {
          throw new PeerError(`the machine did not start: ${this.#logTail()}`, { cause: error });
        }
      }
      await eventLoopTurn();
      await Bun.sleep(10);
    }
  }

  /** From here on it lives by itself. */
  release(): void {
    this.#released = true;
    this.child.unref();
  }

  [Symbol.dispose](): void {
    if (this.#released) return;
    this.child.kill("SIGKILL");
    this.child.unref();
  }

  #logTail(): string {
    return readFileSync(this.logPath, "utf8").slice(-LOG_TAIL_CHARACTERS).trim() || `see ${this.logPath}`;
  }
}
