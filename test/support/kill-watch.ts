import { currentOperation, OPERATION_VARIABLE, OperationsLog } from "../../migrate/mod.ts";
import { isRunning, type ProcessIdentity, processesWithVariable } from "../../src/sys/mod.ts";
import { PROGRAM, type Ran, runVhu } from "../bin/run-vhu.ts";

const SETTLE_TIMEOUT_MS = 30_000;
const POLL_MS = 2;

/** Runs vhu with a log of operations of its own, kills at chosen moments, and looks at what is left. */
export class KillWatch {
  readonly log: OperationsLog;
  readonly #env: { readonly XDG_STATE_HOME: string };

  constructor(stateFolder: string) {
    this.#env = { XDG_STATE_HOME: stateFolder };
    this.log = new OperationsLog(`${stateFolder}/vhu/operations`);
  }

  vhu(...words: readonly string[]): Promise<Ran> {
    return runVhu(words, { env: this.#env });
  }

  /** SIGKILL for vhu itself, or for what `other` finds, so long after vhu's operation has begun. */
  async killDuring(
    words: readonly string[],
    delayMs: number,
    other?: () => number | undefined,
  ): Promise<void> {
    const known = this.log.list().length;
    const child = Bun.spawn([...PROGRAM, ...words], {
      stdio: ["ignore", "ignore", "ignore"],
      env: { ...process.env, ...this.#env },
    });
    const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
    while (this.log.list().length === known && !hasEnded()) await Bun.sleep(POLL_MS);
    await Bun.sleep(delayMs);
    if (other !== undefined) endQuietly(other());
    else if (!hasEnded()) endQuietly(child.pid);
    await child.exited;
  }

  /** What loads have started and still runs, the oldest first. */
  started(): ProcessIdentity[] {
    return this.log
      .list()
      .flatMap(({ id }) => processesWithVariable(OPERATION_VARIABLE, id))
      .sort((a, b) => a.pid - b.pid);
  }

  /** `status` has to say how to go on, in a line each, and `recover` has to do it. Returns how many were interrupted. */
  async recover(): Promise<number> {
    const open = this.log.list().filter((one) => currentOperation(this.log, one).state === "interrupted");
    const status = await this.vhu("migrate", "status");
    if (status.status !== (open.length > 0 ? 1 : 0)) throw new Error(`status says ${JSON.stringify(status)}`);
    if (open.length === 0) return 0;
    const lines = status.stdout.trim().split("\n");
    if (lines.length !== open.length || !lines.every((line) => line.includes("vhu migrate recover"))) {
      throw new Error(`status does not tell how to go on: ${status.stdout}`);
    }
    const recovered = await this.vhu("migrate", "recover");
    if (recovered.status !== 0) throw new Error(`recover failed: ${recovered.stderr}`);
    const after = await this.vhu("migrate", "status");
    if (after.status !== 0) throw new Error(`after recover: ${after.stdout}`);
    return open.length;
  }

  async expectNothingLeft(): Promise<void> {
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const left = this.started();
      if (left.length === 0) return;
      if (performance.now() > deadline) throw new Error(`left over: ${JSON.stringify(left)}`);
      await Bun.sleep(20);
    }
  }

  /** Ends what loads have started: a test's own end of a machine. */
  async endAll(): Promise<void> {
    const all = this.started();
    for (const { pid } of all) endQuietly(pid);
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    while (all.some(isRunning) && performance.now() < deadline) await Bun.sleep(POLL_MS);
  }
}

function endQuietly(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
