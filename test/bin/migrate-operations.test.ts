import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { OperationsLog } from "../../migrate/mod.ts";
import { identityOf, isRunning } from "../../src/sys/mod.ts";
import { interruptedOperation } from "../support/interrupted-operation.ts";
import { killOperations } from "../support/kill-operations.ts";
import { MachineFixture, waitForSequence } from "../support/machine-fixture.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

/** A machine, and vhu with a log of its own. */
function setUp() {
  const fixture = new MachineFixture();
  const env = { XDG_STATE_HOME: fixture.path("state") };
  const log = new OperationsLog(fixture.path("state/vhu/operations"));
  const vhu = (...words: string[]) => runVhu(["migrate", ...words], { env });
  return { fixture, env, log, vhu };
}

/** Waits until the log has an operation in a phase. */
async function waitForPhase(log: OperationsLog, phase: string): Promise<string> {
  for (let i = 0; i < 2000; i++) {
    const found = log.list().find((record) => record.phase === phase);
    if (found !== undefined) return found.id;
    await Bun.sleep(5);
  }
  throw new Error(`no operation came to "${phase}"`);
}

describe("vhu migrate status, list, cancel, recover", () => {
  test("nothing yet; then a save and a load that are done: exit status 0", async () => {
    const { fixture, vhu } = setUp();
    using _fixture = fixture;
    expect(await vhu("status")).toMatchObject({ status: 0, stdout: "nothing is under way\n" });
    expect(await vhu("list")).toMatchObject({ status: 0, stdout: "no operations yet\n" });
    expect(await vhu("recover")).toMatchObject({ status: 0, stdout: "nothing to recover\n" });
    const { driver } = await fixture.start();
    await waitForSequence(driver, 20);
    driver[Symbol.dispose]();
    const file = fixture.path("m.vhu");
    expect(await vhu("save", "--stop", `machine:${fixture.socket}`, file)).toMatchObject({ status: 0 });
    expect(await vhu("load", file)).toMatchObject({ status: 0 });
    const failed = await vhu("save", "machine:/nonexistent.sock", file);
    expect(failed.status).toBe(5);
    const { operations } = JSON.parse((await vhu("list", "--json")).stdout);
    expect(operations).toMatchObject([
      { kind: "load", state: "finished", source: file, outcome: { result: "done" } },
      { kind: "save", source: `machine:${fixture.socket}`, target: file, outcome: { result: "done" } },
    ]);
    expect((await vhu("list")).stdout).toMatch(/load-[0-9a-f]{8} {2}done/);
    const one = await vhu("status", operations[1].id.slice(0, 10));
    expect(one).toMatchObject({ status: 0 });
    expect(one.stdout).toContain("finished: done");
    for (const verb of ["cancel", "recover"]) {
      const ran = await vhu(verb, operations[1].id);
      expect(ran).toMatchObject({ status: 1 });
      expect(ran.stderr).toContain("has ended");
    }
    expect((await vhu("status", "load-nothing")).status).toBe(2);
    await runVhu(["machine", "stop", `machine:${fixture.socket}`]);
  }, 60_000);

  test("a save that runs is seen and cancelled: the machine goes on, and no file is there", async () => {
    const { fixture, env, log, vhu } = setUp();
    using _fixture = fixture;
    const { driver } = await fixture.start();
    using _driver = driver;
    await waitForSequence(driver, 20);
    const [disk] = (await driver.status()).devices;
    // A daemon that does not stop its queue: the save waits.
    process.kill(disk!.pid, "SIGSTOP");
    const file = fixture.path("m.vhu");
    const save = Bun.spawn([...PROGRAM, "migrate", "save", `machine:${fixture.socket}`, file], {
      stdio: ["ignore", "ignore", "ignore"],
      env: { ...process.env, ...env },
    });
    const id = await waitForPhase(log, "saving");
    // Both at once: the save gives the daemon up after some seconds, and then it has failed and was not cancelled.
    const [status, recover] = await Promise.all([vhu("status"), vhu("recover", id)]);
    expect(status).toMatchObject({ status: 0 });
    expect(status.stdout).toContain(`${id} running: machine:${fixture.socket} -> ${file}, saving`);
    expect(recover).toMatchObject({ status: 1 });
    expect(recover.stderr).toContain("is under way");
    const cancelling = vhu("cancel", id);
    await Bun.sleep(500);
    process.kill(disk!.pid, "SIGCONT");
    expect(await cancelling).toMatchObject({ status: 0 });
    expect(log.read(id).outcome).toEqual({ result: "cancelled", message: "interrupted by SIGINT" });
    expect(await save.exited).toBe(130);
    expect(existsSync(file)).toBe(false);
    await waitForSequence(driver, (await driver.status()).workloads[0]!.counters.sequence! + 20);
    await driver.discard();
  }, 60_000);

  test("an interrupted one is named with what to do, --dry-run does nothing, recover ends what it started", async () => {
    const { fixture, log, vhu } = setUp();
    using _fixture = fixture;
    const orphan = Bun.spawn(["sleep", "1000"], { stdio: ["ignore", "ignore", "ignore"] });
    const unmarked = Bun.spawn(["sleep", "1000"], { stdio: ["ignore", "ignore", "ignore"] });
    const start = { kind: "load", source: "/m.vhu", target: "a new process" } as const;
    const id = interruptedOperation(log, start, (operation) => {
      operation.phase("starting", { runsAt: `machine:${fixture.socket}`, sockets: [fixture.socket] });
      operation.started("the machine", orphan.pid);
      operation.phase("loading");
    });
    const marked = Bun.spawn(["sleep", "1000"], {
      stdio: ["ignore", "ignore", "ignore"],
      env: { VHU_OPERATION: id },
    });
    const status = await vhu("status");
    expect(status).toMatchObject({ status: 1 });
    expect(status.stdout).toContain(`vhu migrate recover ${id} ends the 2 processes of it, then load again`);
    const cancel = await vhu("cancel", id);
    expect(cancel).toMatchObject({ status: 1 });
    expect(cancel.stderr).toContain("was interrupted");
    const dry = await vhu("recover", "--dry-run", id);
    expect(dry).toMatchObject({ status: 0 });
    expect(dry.stdout).toContain(`end process ${orphan.pid} (the machine)`);
    expect([orphan.exitCode, marked.exitCode]).toEqual([null, null]);
    const recovered = await vhu("recover");
    expect(recovered).toMatchObject({ status: 0 });
    await Promise.all([orphan.exited, marked.exited]);
    expect(unmarked.exitCode).toBeNull();
    unmarked.kill();
    expect(existsSync(fixture.socket)).toBe(false);
    expect(await vhu("status")).toMatchObject({ status: 0 });
    expect(log.read(id).outcome).toMatchObject({ result: "recovered" });
  }, 60_000);
});

describe("moves between hosts that broke off", () => {
  test("the source has given it up: only the other host's word takes it back", async () => {
    const { fixture, log, vhu } = setUp();
    using _fixture = fixture;
    const { driver, process: machine } = await fixture.start();
    using _driver = driver;
    const { workloads } = await waitForSequence(driver, 20);
    const address = `machine:${fixture.socket}`;
    await runVhu(["machine", "suspend", address]);
    const id = interruptedOperation(
      log,
      { kind: "send", source: address, target: "tcp:b:4950" },
      (operation) => {
        operation.phase("sending", { vmProcess: identityOf(machine.pid)!, handover: { state: "sending" } });
        operation.phase("released", { handover: { state: "released" } });
      },
    );
    const status = await vhu("status");
    expect(status).toMatchObject({ status: 1 });
    expect(status.stdout).toContain(`${id} interrupted: released: ${address}: this host has given it up`);
    expect(status.stdout.trim()).not.toContain("\n");
    // Without a word, and while the other may run it: it stays as it is.
    for (const words of [[], ["--other", "loaded"], ["--other", "owner"]]) {
      const ran = await vhu("recover", id, ...words);
      expect(ran).toMatchObject({ status: 0 });
      expect(ran.stdout).toContain("may not run it");
      expect((await driver.status()).runState).toBe("suspended");
      expect(await vhu("status")).toMatchObject({ status: 1 });
    }
    expect(await vhu("recover", id, "--other", "sending")).toMatchObject({ status: 2 });
    expect(await vhu("recover", id, "--abandon")).toMatchObject({ status: 2 });
    const recovered = await vhu("recover", id, "--other", "abandoned");
    expect(recovered).toMatchObject({ status: 0 });
    expect(recovered.stdout).toContain("it goes on here");
    await waitForSequence(driver, workloads[0]!.counters.sequence! + 20);
    expect(log.read(id).facts.handover).toEqual({ state: "kept" });
    expect(await vhu("status")).toMatchObject({ status: 0 });
    await driver.discard();
  }, 60_000);

  test("the destination has all of it: the source's word lets it run, or drops it", async () => {
    const { fixture, log, vhu } = setUp();
    using _fixture = fixture;
    const { driver, process: machine } = await fixture.start();
    using _driver = driver;
    const { workloads } = await waitForSequence(driver, 20);
    const address = `machine:${fixture.socket}`;
    const loaded = () =>
      interruptedOperation(
        log,
        { kind: "receive", source: "tcp:a", target: "a new process" },
        (operation) => {
          operation.phase("receiving", { runsAt: address, handover: { state: "receiving" } });
          operation.started("the machine", machine.pid);
          operation.phase("loaded", { handover: { state: "loaded" } });
        },
      );
    await runVhu(["machine", "suspend", address]);
    const first = loaded();
    const status = await vhu("status");
    expect(status.stdout).toContain(`${first} interrupted: loaded: ${address}: all of it is here`);
    expect((await vhu("recover", first)).stdout).toContain("waits for the source's word");
    expect((await driver.status()).runState).toBe("suspended");
    expect(await vhu("recover", first, "--other", "moved")).toMatchObject({ status: 1 });
    const owned = await vhu("recover", first, "--other", "released");
    expect(owned).toMatchObject({ status: 0 });
    expect(owned.stdout).toContain("it runs here");
    await waitForSequence(driver, workloads[0]!.counters.sequence! + 20);
    expect(log.read(first).facts.handover).toEqual({ state: "running" });
    const second = loaded();
    const dropped = await vhu("recover", second, "--abandon");
    expect(dropped).toMatchObject({ status: 0 });
    expect(log.read(second).facts.handover).toEqual({ state: "abandoned" });
    expect(isRunning({ pid: machine.pid, startTicks: log.read(second).facts.started![0]!.startTicks })).toBe(
      false,
    );
  }, 60_000);
});

test("SIGKILL of vhu, the machine or a daemon in the middle of a save or a load: a sample of the soak", async () => {
  const { saves, loads } = await killOperations(20261125, 6);
  expect([saves, loads]).toEqual([3, 3]);
}, 120_000);
