import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { SyscallError } from "../../src/errors.ts";
import { createPipe, Deadline, type Fd } from "../../src/sys/mod.ts";

const LOG_TAIL_CHARACTERS = 2_000;
const TERMINATE_TIMEOUT_MS = 2_000;
const POLL_MS = 5;

/**
 * Becomes the command, and leaves a watcher behind that ends it, unless it is told on fd 3 to let it go: also when vhu is
 * killed. The watcher is nobody's child, so that the command never has to wait for it. Told "with", it waits until nobody has
 * the other end of fd 3 any more, and ends the command then, if its pid is still the command's (field 22 of /proc/PID/stat).
 */
const GUARD = `started() { read -r line </proc/$$/stat && set -- \${line##*) } && echo "\${20}"; }
( (
  before=$(started); read -r word <&3
  case "$word" in
    go) ;;
    with) read -r word <&3; [ "$(started)" = "$before" ] && kill -TERM $$ ;;
    *) kill -KILL $$ ;;
  esac
) </dev/null >/dev/null 2>&1 & )
exec "$@" 3<&-`;

/**
 * A process that vhu starts for a machine: in a session of its own, its output in a log file, so that it outlives vhu. Until
 * `release` it ends when this object is disposed of, and when vhu ends in whatever way.
 */
export class GuardedProcess implements Disposable {
  #isReleased = false;

  private constructor(
    readonly child: ChildProcess,
    readonly logPath: string,
    readonly lifeLine: Fd,
  ) {}

  /** @throws SyscallError when there is no such program */
  static start(command: readonly string[], logPath: string): GuardedProcess {
    const program = command[0] as string;
    if (Bun.which(program) === null) throw new SyscallError("execve", "ENOENT", program);
    const log = openSync(logPath, "a", 0o600);
    using pipe = createPipe();
    try {
      const child = spawn("/bin/sh", ["-c", GUARD, "sh", ...command], {
        detached: true,
        stdio: ["ignore", log, log, pipe.readEnd.number],
      });
      child.on("error", () => {});
      return new GuardedProcess(child, logPath, pipe.writeEnd.duplicate("life line"));
    } finally {
      closeSync(log);
    }
  }

  get isReleased(): boolean {
    return this.#isReleased;
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** The end of its log, for an error's message. */
  get lastWords(): string {
    const tail = readFileSync(this.logPath, "utf8").slice(-LOG_TAIL_CHARACTERS).trim();
    return `${tail === "" ? "it wrote nothing" : `it wrote: ${tail}`} (${this.logPath})`;
  }

  /** From now on it is on its own; or ("with") it is ended when the last process ends that has inherited `lifeLine`. */
  release(word: "go" | "with" = "go"): void {
    this.#isReleased = true;
    this.#letGo(word);
    this.child.unref();
  }

  /** Ends it in an orderly way, else by force. */
  async end(): Promise<void> {
    if (this.#isReleased) return;
    if (!this.hasEnded) this.child.kill("SIGTERM");
    const deadline = new Deadline(TERMINATE_TIMEOUT_MS);
    while (!this.hasEnded && !deadline.expired) await Bun.sleep(POLL_MS);
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    if (this.#isReleased) return;
    if (!this.hasEnded) this.child.kill("SIGKILL");
    this.#letGo("go");
    this.child.unref();
  }

  #letGo(word: "go" | "with"): void {
    if (!this.lifeLine.isOpen) return;
    try {
      writeSync(this.lifeLine.number, `${word}\n`);
    } catch {
      // The watcher has gone: it has nothing to watch any more.
    }
    this.lifeLine[Symbol.dispose]();
  }
}
