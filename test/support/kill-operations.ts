import { copyFileSync, existsSync } from "node:fs";
import { verifySnapshot } from "../../migrate/snapshot/mod.ts";
import { randomNumbers } from "../fuzz/mutate.ts";
import { KillWatch } from "./kill-watch.ts";
import { MachineFixture, sequenceOf, waitForSequence } from "./machine-fixture.ts";

/** From the first entry in the log: a save of the test's machine takes some 100 ms, a load half a second. */
const MAX_DELAY_MS = { save: 150, load: 600 } as const;
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
  readonly #watch: KillWatch;

  constructor(
    readonly fixture: MachineFixture,
    readonly victim: (typeof VICTIMS)[number],
    readonly delayMs: number,
  ) {
    this.#watch = new KillWatch(fixture.path("state"));
  }

  async killSave(sum: Sum): Promise<void> {
    sum.saves += 1;
    const { fixture } = this;
    const { process: machine, driver } = await fixture.start();
    using _driver = driver;
    const before = await waitForSequence(driver, 50);
    const file = fixture.path("m.vhu");
    const live = sum.saves % 2 === 0 ? ["--live"] : [];
    const words = ["migrate", "save", ...live, `machine:${fixture.socket}`, file];
    await this.#kill(words, () => (this.victim === "machine" ? machine.pid : before.devices[0]!.pid));
    sum.interrupted += await this.#watch.recover();
    requireWhole(file);
    if (this.victim !== "vhu") return fixture.kill(machine, before);
    await waitForSequence(driver, sequenceOf(before) + 50);
    sum.sourceWentOn += 1;
    await this.#verify();
    await fixture.kill(machine, await driver.status());
  }

  async killLoad(sum: Sum): Promise<void> {
    sum.loads += 1;
    const { fixture } = this;
    const watch = this.#watch;
    const started = await fixture.start();
    await waitForSequence(started.driver, 50);
    started.driver[Symbol.dispose]();
    const file = fixture.path("m.vhu");
    const saved = await watch.vhu("migrate", "save", "--stop", `machine:${fixture.socket}`, file);
    if (saved.status !== 0) throw new Error(saved.stderr);
    // The disk is not in the snapshot: both are of one moment.
    copyFileSync(fixture.path("disk.img"), fixture.path("disk.saved"));
    copyFileSync(fixture.path("console.log"), fixture.path("console.saved"));
    await this.#kill(["migrate", "load", file], () =>
      this.victim === "machine" ? watch.started()[0]?.pid : watch.started().at(-1)?.pid,
    );
    sum.interrupted += await watch.recover();
    const state = await watch.vhu("machine", "status", `machine:${fixture.socket}`, "--json");
    if (state.status === 0 && JSON.parse(state.stdout).runState === "running") {
      sum.loaded += 1;
      if (this.victim !== "daemon") await this.#verify();
      await watch.vhu("machine", "stop", `machine:${fixture.socket}`);
    }
    await watch.expectNothingLeft();
    // Whatever happened, the file can be loaded.
    copyFileSync(fixture.path("disk.saved"), fixture.path("disk.img"));
    copyFileSync(fixture.path("console.saved"), fixture.path("console.log"));
    const again = await watch.vhu("migrate", "load", file);
    if (again.status !== 0) throw new Error(`it cannot be loaded again: ${again.stderr}`);
    await this.#verify();
    await watch.vhu("machine", "stop", `machine:${fixture.socket}`);
    await watch.expectNothingLeft();
  }

  #kill(words: readonly string[], other: () => number | undefined): Promise<void> {
    return this.#watch.killDuring(words, this.delayMs, this.victim === "vhu" ? undefined : other);
  }

  async #verify(): Promise<void> {
    const report = await this.fixture.verify();
    if (report.lost + report.torn + report.repeated > 0) throw new Error(JSON.stringify(report));
  }
}

/** There is no file, or a whole one. */
export function requireWhole(file: string): void {
  if (!existsSync(file)) return;
  const result = verifySnapshot(file, { deep: true });
  if (!result.ok) throw new Error(`the snapshot is damaged: ${result.problems[0]?.message}`);
}
