import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { PeerError } from "../../src/errors.ts";
import { Deadline, eventLoopTurn } from "../../src/sys/mod.ts";
import { MachineDriver } from "./machine-driver.ts";

/** A machine's start is its back-ends' starts, each of them a process. */
const START_TIMEOUT_MS = 60_000;
const RETRY_MS = 10;
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
      const driver = this.#tryConnect(deadline);
      if (driver !== undefined) return driver;
      await eventLoopTurn();
      await Bun.sleep(RETRY_MS);
    }
  }

  #tryConnect(deadline: Deadline): MachineDriver | undefined {
    try {
      const driver = new MachineDriver(this.socketPath);
      // A machine that was killed a moment ago may still hold the socket of that name: only this process's is right.
      if (driver.pid === this.pid) return driver;
      driver[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof PeerError && error.reconnect)) throw error;
    }
    if (this.child.exitCode !== null || this.child.signalCode !== null || deadline.expired) {
      throw new PeerError(`the machine did not start: ${this.#logTail()}`);
    }
    return undefined;
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
