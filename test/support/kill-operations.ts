import { copyFileSync, existsSync } from "node:fs";
import { currentOperation, OPERATION_VARIABLE, OperationsLog } from "../../migrate/mod.ts";
import { verifySnapshot } from "../../migrate/snapshot/mod.ts";
import { processesWithVariable } from "../../src/sys/mod.ts";
import { PROGRAM, runVhu } from "../bin/run-vhu.ts";
import { randomNumbers } from "../fuzz/mutate.ts";
import { MachineFixture, sequenceOf, waitForSequence } from "./machine-fixture.ts";

/** From the first entry in the log: a save of the test's machine takes some 100 ms, a load half a second. */
const MAX_DELAY_MS = { save: 150, load: 600 } as const;
const SETTLE_TIMEOUT_MS = 20_000;
const VICTIMS = ["vhu", "machine", "daemon"] as const;

export interface OperationKills {
  readonly saves: number;
  readonly loads: number;
  /** vhu was dead before the log had the operation's end. */
  readonly interrupted: number;
  readonly sourceWentOn: number;
  readonly loaded: number;
}

/**
 * SIGKILL of vhu, of the machine or of one of its daemons, at `count` random moments of a save or a load. Afterwards the
 * source or the destination runs, or the machine itself was killed; no process is left over; `vhu migrate status` tells how to
 * go on, `recover` does it, and what is under the snapshot's name is whole.
 */
export async function killOperations(seed: number, count: number): Promise<OperationKills> {
  const random = randomNumbers(seed);
  const sum = { saves: 0, loads: 0, interrupted: 0, sourceWentOn: 0, loaded: 0 };
  for (let index = 0; index < count; index += 1) {
    const victim = VICTIMS[index % 3]!;
    const isSave = index % 2 === 0;
    const delayMs = random(MAX_DELAY_MS[isSave ? "save" : "load"]);
    try {
      using fixture = new MachineFixture();
      const case_ = new KillCase(fixture, victim, delayMs);
      await (isSave ? case_.killSave(sum) : case_.killLoad(sum));
    } catch (cause) {
      const kind = isSave ? "save" : "load";
      throw new Error(`kill ${index} of seed ${seed}: ${victim} ${delayMs} ms into a ${kind}`, { cause });
    }
  }
  return sum;
}

type Sum = { -readonly [Name in keyof OperationKills]: OperationKills[Name] };

class KillCase {
  readonly #env: { readonly XDG_STATE_HOME: string };
  readonly #log: OperationsLog;

  constructor(
    readonly fixture: MachineFixture,
    readonly victim: (typeof VICTIMS)[number],
    readonly delayMs: number,
  ) {
    this.#env = { XDG_STATE_HOME: fixture.path("state") };
    this.#log = new OperationsLog(fixture.path("state/vhu/operations"));
  }

  async killSave(sum: Sum): Promise<void> {
    sum.saves += 1;
    const { fixture } = this;
    const { process: machine, driver } = await fixture.start();
    using _driver = driver;
    const before = await waitForSequence(driver, 50);
    const file = fixture.path("m.vhu");
    const words = [
      "migrate",
      "save",
      ...(sum.saves % 2 === 0 ? ["--live"] : []),
      `machine:${fixture.socket}`,
      file,
    ];
    await this.#killDuring(words, () => (this.victim === "machine" ? machine.pid : before.devices[0]!.pid));
    await this.#recover(sum);
    if (existsSync(file)) {
      const result = verifySnapshot(file, { deep: true });
      if (!result.ok) throw new Error(`the snapshot is damaged: ${result.problems[0]?.message}`);
    }
    if (this.victim !== "vhu") return fixture.kill(machine, before);
    await waitForSequence(driver, sequenceOf(before) + 50);
    sum.sourceWentOn += 1;
    const report = await fixture.verify();
    if (report.lost + report.torn + report.repeated > 0) throw new Error(JSON.stringify(report));
    await fixture.kill(machine, await driver.status());
  }

  async killLoad(sum: Sum): Promise<void> {
    sum.loads += 1;
    const { fixture } = this;
    const started = await fixture.start();
    await waitForSequence(started.driver, 50);
    started.driver[Symbol.dispose]();
    const saved = await this.#vhu(
      "migrate",
      "save",
      "--stop",
      `machine:${fixture.socket}`,
      fixture.path("m.vhu"),
    );
    if (saved.status !== 0) throw new Error(saved.stderr);
    // The disk is not in the snapshot: both are of one moment.
    copyFileSync(fixture.path("disk.img"), fixture.path("disk.saved"));
    copyFileSync(fixture.path("console.log"), fixture.path("console.saved"));
    await this.#killDuring(["migrate", "load", fixture.path("m.vhu")], () => this.#startedPid());
    await this.#recover(sum);
    const state = await this.#vhu("machine", "status", `machine:${fixture.socket}`, "--json");
    if (state.status === 0 && JSON.parse(state.stdout).runState === "running") {
      sum.loaded += 1;
      if (this.victim === "daemon") await this.#vhu("machine", "stop", `machine:${fixture.socket}`);
      else await this.#verifyAndStop();
    }
    await this.#expectNothingLeft();
    // Whatever happened, the file can be loaded.
    copyFileSync(fixture.path("disk.saved"), fixture.path("disk.img"));
    copyFileSync(fixture.path("console.saved"), fixture.path("console.log"));
    const again = await this.#vhu("migrate", "load", fixture.path("m.vhu"));
    if (again.status !== 0) throw new Error(`it cannot be loaded again: ${again.stderr}`);
    await this.#verifyAndStop();
    await this.#expectNothingLeft();
  }

  async #killDuring(words: readonly string[], otherPid: () => number | undefined): Promise<void> {
    const known = this.#log.list().length;
    const child = Bun.spawn([...PROGRAM, ...words], {
      stdio: ["ignore", "ignore", "ignore"],
      env: { ...process.env, ...this.#env },
    });
    const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
    while (this.#log.list().length === known && !hasEnded()) await Bun.sleep(1);
    await Bun.sleep(this.delayMs);
    const pid = this.victim === "vhu" ? child.pid : otherPid();
    try {
      if (pid !== undefined && (this.victim !== "vhu" || child.exitCode === null))
        process.kill(pid, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
    await child.exited;
  }

  /** The machine of the running load, or one of its daemons. */
  #startedPid(): number | undefined {
    const started = this.#log
      .list()
      .filter(({ kind }) => kind === "load")
      .flatMap(({ id }) => processesWithVariable(OPERATION_VARIABLE, id))
      .sort((a, b) => a.pid - b.pid);
    return (this.victim === "machine" ? started[0] : started.at(-1))?.pid;
  }

  async #recover(sum: Sum): Promise<void> {
    const open = this.#log
      .list()
      .filter((record) => currentOperation(this.#log, record).state === "interrupted");
    const status = await this.#vhu("migrate", "status");
    if (status.status !== (open.length > 0 ? 1 : 0)) throw new Error(`status says ${JSON.stringify(status)}`);
    if (open.length === 0) return;
    sum.interrupted += 1;
    const lines = status.stdout.trim().split("\n");
    if (lines.length !== open.length || !lines.every((line) => line.includes("vhu migrate recover"))) {
      throw new Error(`status does not tell how to go on: ${status.stdout}`);
    }
    const recovered = await this.#vhu("migrate", "recover");
    if (recovered.status !== 0) throw new Error(`recover failed: ${recovered.stderr}`);
    const after = await this.#vhu("migrate", "status");
    if (after.status !== 0) throw new Error(`after recover: ${after.stdout}`);
  }

  async #verifyAndStop(): Promise<void> {
    const report = await this.fixture.verify();
    if (report.lost + report.torn + report.repeated > 0) throw new Error(JSON.stringify(report));
    await this.#vhu("machine", "stop", `machine:${this.fixture.socket}`);
  }

  async #expectNothingLeft(): Promise<void> {
    const ids = this.#log.list().map(({ id }) => id);
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    for (;;) {
      const left = ids.flatMap((id) => processesWithVariable(OPERATION_VARIABLE, id));
      if (left.length === 0) return;
      if (performance.now() > deadline) throw new Error(`left over: ${JSON.stringify(left)}`);
      await Bun.sleep(20);
    }
  }

  #vhu(...words: string[]) {
    return runVhu(words, { env: this.#env });
  }
}
