import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { PeerError, SyscallError } from "../../src/errors.ts";
import { Deadline, type Fd, listeningPaths, UnixListener, type UnixSocket } from "../../src/sys/mod.ts";
import { streamSockets } from "./migration-stream.ts";
import { QemuDriver, type QemuDriverOptions } from "./qemu-driver.ts";

/** QEMU opens its monitor before it looks at its memory and disks; a loaded machine takes longer. */
const START_TIMEOUT_MS = 30_000;
const POLL_MS = 10;
const LOG_TAIL_CHARACTERS = 2_000;

export interface QemuLaunchOptions {
  /** The child's fds from 3 on; they stay the caller's. */
  readonly fds?: readonly Fd[];
  /** RAM blocks whose memory is behind those fds: the driver sends no page of them. */
  readonly sharedBlocks?: ReadonlySet<string>;
  /** Further fds that the child only has open; they stay the caller's. */
  readonly lifeLines?: readonly Fd[];
}

/** The child's first fd after stdin, stdout and stderr. */
const FIRST_FD = 3;

/**
 * A QEMU that vhu started, in a session of its own, its output in a log file, so that it outlives vhu. Until `release` it
 * ends when this object is disposed of. It has the stream's socket from its first moment, and ends when that closes before
 * the machine was loaded: also when vhu is killed.
 */
export class QemuLaunch implements Disposable {
  #isReleased = false;
  /** Until the driver has it. */
  #stream: UnixSocket | undefined;

  private constructor(
    readonly child: ChildProcess,
    readonly socketPath: string,
    readonly logPath: string,
    readonly sharedBlocks: ReadonlySet<string>,
    stream: UnixSocket,
  ) {
    this.#stream = stream;
  }

  /**
   * Starts QEMU with a monitor at `socketPath`, waiting for a VM. @throws UsageError when another process listens there
   */
  static start(
    program: string,
    args: readonly string[],
    socketPath: string,
    { fds = [], sharedBlocks = new Set(), lifeLines = [] }: QemuLaunchOptions = {},
  ): QemuLaunch {
    // QEMU would take the path away from whoever listens at it; this refuses that, and removes a stale socket.
    UnixListener.listen(socketPath)[Symbol.dispose]();
    const logPath = `${socketPath}.log`;
    const [ours, theirs] = streamSockets();
    using stack = new DisposableStack();
    stack.use(ours);
    using _ = theirs;
    const log = openSync(logPath, "a", 0o600);
    try {
      const child = spawn(
        program.includes("/") ? resolve(program) : program,
        [...args, ...QemuLaunch.argumentsOf(socketPath, fds.length)],
        {
          detached: true,
          // QEMU looks for its ROMs where it stands first, and a command line names no file without its folder.
          cwd: "/",
          stdio: ["ignore", log, log, ...[...fds, theirs.fd, ...lifeLines].map(({ number }) => number)],
        },
      );
      // A program that is not there; `connect` then tells it from the process that is missing.
      child.on("error", () => {});
      stack.move();
      return new QemuLaunch(child, socketPath, logPath, sharedBlocks, ours);
    } finally {
      closeSync(log);
    }
  }

  /** What is added to the machine's own arguments; QEMU gets the stream's socket after `fdCount` other fds. */
  static argumentsOf(socketPath: string, fdCount: number): string[] {
    const path = socketPath.replaceAll(",", ",,");
    return ["-qmp", `unix:${path},server=on,wait=off`, "-S", "-incoming", `fd:${FIRST_FD + fdCount}`];
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Waits for the monitor. @throws PeerError with the end of the log when QEMU ends before */
  async connect(options: QemuDriverOptions = {}): Promise<QemuDriver> {
    const deadline = new Deadline(START_TIMEOUT_MS);
    if (this.child.pid === undefined) throw new SyscallError("spawn", "ENOENT", this.child.spawnfile);
    // The path is there before QEMU listens at it.
    while (!listeningPaths().has(this.socketPath)) {
      options.signal?.throwIfAborted();
      if (this.#hasEnded || deadline.expired) throw this.#failure();
      await Bun.sleep(POLL_MS);
    }
    try {
      const driver = await QemuDriver.connect(this.socketPath, {
        ...options,
        stream: this.#stream,
        sharedBlocks: this.sharedBlocks,
        greetingTimeoutMs: START_TIMEOUT_MS,
      });
      this.#stream = undefined;
      return driver;
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      throw this.#failure(error);
    }
  }

  /** The same error, with what QEMU wrote before it ended. */
  explain(error: unknown): unknown {
    if (!(error instanceof PeerError)) return error;
    return new PeerError(`${error.message}; ${this.#lastWords}`, { cause: error });
  }

  /** From now on it is on its own. */
  release(): void {
    this.#isReleased = true;
    this.child.unref();
  }

  [Symbol.dispose](): void {
    this.#stream?.[Symbol.dispose]();
    if (!this.#isReleased && !this.#hasEnded) this.child.kill("SIGKILL");
  }

  get #hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  #failure(cause?: unknown): PeerError {
    return new PeerError(`QEMU did not start: ${this.#lastWords}`, { cause });
  }

  get #lastWords(): string {
    const tail = readFileSync(this.logPath, "utf8").slice(-LOG_TAIL_CHARACTERS).trim();
    return `QEMU ${tail === "" ? "wrote nothing" : `wrote: ${tail}`} (${this.logPath})`;
  }
}
