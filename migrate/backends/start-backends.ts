import { lstatSync, unlinkSync } from "node:fs";
import { PeerError, StateError, UsageError } from "../../src/errors.ts";
import { Deadline, type Fd, listeningPaths, socketsAt, UnixListener } from "../../src/sys/mod.ts";
import type { BackendRole } from "../policy/mod.ts";
import { GuardedProcess } from "./guarded-process.ts";

/** A back-end to be started for a machine. */
export interface BackendCommand {
  readonly chardev: string;
  readonly type: string;
  /** Where it listens, or QEMU does. */
  readonly socket: string;
  /** QEMU listens there. */
  readonly connects: boolean;
  /** Further sockets of the same process, of other devices of the machine. */
  readonly others?: readonly { readonly chardev: string; readonly socket: string }[] | undefined;
  readonly role: BackendRole;
  /** It would outlive the machine's VMM, so it is ended when that has gone. */
  readonly staysOn?: boolean | undefined;
  readonly command: readonly string[];
}

export interface StartBackendsOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called for each, for the log of operations. */
  readonly onStarted?: ((name: string, pid: number) => void) | undefined;
}

/** virtiofsd is there in milliseconds, a device of vhu's own in a quarter of a second; a loaded machine takes longer. */
const START_TIMEOUT_MS = 30_000;
const POLL_MS = 10;

/** The back-ends of a machine that is being loaded. Until `release` they end when it is disposed of, or vhu ends. */
export class StartedBackends implements AsyncDisposable {
  readonly #processes: { readonly command: BackendCommand; readonly process: GuardedProcess }[] = [];

  /**
   * Starts them all at once and waits until those that listen do.
   * @throws PeerError with the last words of one that ends, UsageError for a path that is taken
   */
  static async start(
    commands: readonly BackendCommand[],
    options: StartBackendsOptions = {},
  ): Promise<StartedBackends> {
    await using stack = new AsyncDisposableStack();
    const started = stack.use(new StartedBackends());
    for (const command of commands) started.#start(command);
    const deadline = new Deadline(START_TIMEOUT_MS);
    while (!started.#areThere()) {
      options.signal?.throwIfAborted();
      started.requireAlive();
      if (deadline.expired) throw new PeerError(`the back-ends do not listen after ${START_TIMEOUT_MS} ms`);
      await Bun.sleep(POLL_MS);
    }
    // Only now each runs the program that it is to run, by which the log knows it again.
    for (const { type, chardev, pid } of started.list)
      options.onStarted?.(`the ${type} back-end of ${chardev}`, pid);
    stack.move();
    return started;
  }

  /** @throws PeerError that says which has ended, and its last words */
  requireAlive(): void {
    const dead = this.#processes.find(({ process }) => process.hasEnded);
    if (dead === undefined) return;
    const { command, process } = dead;
    throw new PeerError(`the ${command.type} back-end of ${command.chardev} has ended: ${process.lastWords}`);
  }

  get list(): {
    readonly chardev: string;
    readonly type: string;
    readonly pid: number;
    readonly log: string;
  }[] {
    return this.#processes.map(({ command, process }) => ({
      chardev: command.chardev,
      type: command.type,
      pid: process.pid,
      log: process.logPath,
    }));
  }

  /** For the VMM to inherit: a back-end that would stay on is ended when nobody has its fd any more. They stay ours. */
  get lifeLines(): Fd[] {
    return this.#processes.flatMap(({ command, process }) => (command.staysOn ? [process.lifeLine] : []));
  }

  /** From now on they are on their own, and end with their QEMU. */
  release(): void {
    for (const { command, process } of this.#processes) process.release(command.staysOn ? "with" : "go");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      this.#processes.map(async ({ command, process }) => {
        await process.end();
        // virtiofsd leaves its socket's file; one that somebody listens at is not ours.
        if (command.connects || process.isReleased) return;
        for (const path of socketsOf(command)) {
          if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) unlinkSync(path);
        }
      }),
    );
  }

  #start(command: BackendCommand): void {
    // A stale socket is removed, and one that somebody listens at is refused.
    for (const path of socketsOf(command)) UnixListener.listen(path)[Symbol.dispose]();
    const process = GuardedProcess.start(command.command, `${command.socket}.log`);
    this.#processes.push({ command, process });
  }

  #areThere(): boolean {
    const listening = listeningPaths();
    return this.#processes.every(({ command }) => socketsOf(command).every((path) => listening.has(path)));
  }
}

/** Where it listens. */
function socketsOf({ connects, socket, others = [] }: BackendCommand): string[] {
  return connects ? [] : [socket, ...others.map((each) => each.socket)];
}

/**
 * Whether somebody listens at a back-end's socket already and waits for a front-end: then it is taken as it is.
 * @throws StateError when it serves another VM
 */
export function isWaiting(socket: string, chardev: string): boolean {
  const named = socketsAt(socket);
  if (!named.some(({ isListening }) => isListening)) return false;
  if (named.some(({ isListening, peer }) => !isListening && peer !== undefined)) {
    throw new StateError(
      `the back-end at ${socket} (${chardev}) serves another VM: end that one, or load with --runtime-dir, which starts others`,
    );
  }
  return true;
}

/** @throws UsageError */
export function requireSocketPath(path: string): string {
  if (Buffer.byteLength(path) <= 107) return path;
  throw new UsageError(`${path} is too long for a socket: choose a shorter --runtime-dir`);
}
