import { describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { MachineFixture, waitForSequence } from "../support/machine-fixture.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

describe("vhu migrate and vhu machine", () => {
  test("save, stop, load by itself, status, suspend, resume, verify, stop: exit status 0", async () => {
    using fixture = new MachineFixture();
    const env = { XDG_STATE_HOME: fixture.path("state") };
    const machine = `machine:${fixture.socket}`;
    const { driver } = await fixture.start();
    await waitForSequence(driver, 100);
    driver[Symbol.dispose]();
    const save = await runVhu(
      ["migrate", "save", "--stop", "--label", "why=test", machine, fixture.path("m.vhu"), "--json"],
      { env },
    );
    expect(save.status).toBe(0);
    const summary = JSON.parse(save.stdout.trim().split("\n").at(-1)!);
    expect(summary).toMatchObject({ type: "summary", memoryBytes: 8 << 20 });
    const load = await runVhu(["migrate", "load", fixture.path("m.vhu"), "--json"], { env });
    expect(load.status).toBe(0);
    try {
      expect((await runVhu(["machine", "suspend", machine])).status).toBe(0);
      expect((await runVhu(["machine", "suspend", machine])).status).toBe(1);
      const status = await runVhu(["machine", "status", machine, "--json"]);
      expect(JSON.parse(status.stdout)).toMatchObject({ runState: "suspended", name: "m" });
      expect((await runVhu(["machine", "resume", machine])).status).toBe(0);
      const verify = await runVhu(["machine", "verify", machine]);
      expect(verify).toMatchObject({ status: 0 });
      expect(verify.stdout).toContain("0 lost, 0 torn, 0 repeated");
    } finally {
      expect((await runVhu(["machine", "stop", machine])).status).toBe(0);
    }
    const inspect = await runVhu(["snapshot", "inspect", fixture.path("m.vhu"), "--json"]);
    expect(JSON.parse(inspect.stdout).header.labels).toEqual({ why: "test" });
  }, 60_000);

  test("through a pipe: save to stdout, load from stdin into a waiting machine", async () => {
    using fixture = new MachineFixture();
    const { driver, process: first } = await fixture.start();
    const status = await waitForSequence(driver, 100);
    driver[Symbol.dispose]();
    const save = Bun.spawn([...PROGRAM, "migrate", "save", "--stop", `machine:${fixture.socket}`, "-"], {
      stdout: "pipe",
      stderr: "pipe",
    });
    const bytes = new Uint8Array(await new Response(save.stdout).arrayBuffer());
    expect(await save.exited).toBe(0);
    await fixture.kill(first, status);
    const waiting = await fixture.start(["--incoming", "--socket", fixture.socket]);
    waiting.driver[Symbol.dispose]();
    const load = await runVhu(["migrate", "load", "-", `machine:${fixture.socket}`], { stdin: bytes });
    expect(load).toMatchObject({ status: 0 });
    expect(await fixture.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
    await runVhu(["machine", "stop", `machine:${fixture.socket}`]);
  }, 60_000);

  test("exit status 2: wrong addresses and options", async () => {
    for (const words of [
      ["migrate", "save", "tcp:host:1", "x.vhu"],
      ["migrate", "save", "machine:/x"],
      ["migrate", "save", "--type", "fs", "machine:/x", "x.vhu"],
      ["migrate", "save", "--label", "novalue", "machine:/x", "x.vhu"],
      ["migrate", "save", "--background", "--live", "qmp:/x", "x.vhu"],
      ["migrate", "save", "--background", "--stop", "qmp:/x", "x.vhu"],
      ["migrate", "save", "--disks", "overlay", "--stop", "qmp:/x", "x.vhu"],
      ["machine", "run"],
      ["machine", "run", "--incoming"],
      ["machine", "status", "unix:/x"],
    ]) {
      expect([words.join(" "), (await runVhu(words)).status]).toEqual([words.join(" "), 2]);
    }
  }, 60_000);

  test("exit status 3: a damaged snapshot starts nothing; a machine file that is none", async () => {
    using fixture = new MachineFixture();
    writeFileSync(fixture.path("bad.vhu"), "this is no snapshot");
    const load = await runVhu(["migrate", "load", "--trust", fixture.path("bad.vhu")]);
    expect(load.status).toBe(3);
    expect(existsSync(fixture.socket)).toBe(false);
    writeFileSync(fixture.path("bad.toml"), 'name = "m"\n');
    const run = await runVhu(["machine", "run", fixture.path("bad.toml")]);
    expect(run.status).toBe(3);
    expect(run.stderr).toContain("memory");
  }, 60_000);

  test("exit status 4: a snapshot from elsewhere is not trusted, and is refused before anything starts", async () => {
    using fixture = new MachineFixture();
    const { driver } = await fixture.start();
    await waitForSequence(driver, 20);
    driver[Symbol.dispose]();
    const here = { env: { XDG_STATE_HOME: fixture.path("here") } };
    await runVhu(["migrate", "save", "--stop", `machine:${fixture.socket}`, fixture.path("m.vhu")], here);
    const elsewhere = { env: { XDG_STATE_HOME: fixture.path("elsewhere") } };
    const load = await runVhu(["migrate", "load", fixture.path("m.vhu"), "--json"], elsewhere);
    expect(load.status).toBe(4);
    expect(load.stdout + load.stderr).toContain("UNTRUSTED");
    expect(existsSync(fixture.socket)).toBe(false);
  }, 60_000);

  test("exit status 5: nobody is there", async () => {
    expect((await runVhu(["migrate", "save", "machine:/nonexistent.sock", "/tmp/x.vhu"])).status).toBe(5);
    expect((await runVhu(["machine", "status", "machine:/nonexistent.sock"])).status).toBe(5);
    expect(existsSync("/tmp/x.vhu")).toBe(false);
  }, 60_000);

  test("exit status 130: Ctrl-C during a save leaves the machine running and no file", async () => {
    using fixture = new MachineFixture();
    const { driver } = await fixture.start();
    using _driver = driver;
    const before = await waitForSequence(driver, 20);
    // The signal may come before, during or after the save: in each case the machine goes on.
    const save = Bun.spawn([...PROGRAM, "migrate", "save", `machine:${fixture.socket}`, "-"], {
      stdout: "pipe",
      stderr: "pipe",
    });
    await Bun.sleep(30);
    save.kill("SIGINT");
    const status = await save.exited;
    expect([0, 130]).toContain(save.signalCode === "SIGINT" ? 130 : status);
    await waitForSequence(driver, before.workloads[0]!.counters.sequence! + 20);
    await driver.discard();
  }, 60_000);
});

test("vhu demo: nothing lost, torn or repeated", async () => {
  const demo = await runVhu(["demo", "--json", "--writes", "800"]);
  const summary = JSON.parse(demo.stdout.trim().split("\n").at(-1)!);
  expect(summary).toMatchObject({
    type: "summary",
    ok: true,
    evidence: { repeatedLines: 0, missingLines: 0, tornBlocks: 0, lostBlocks: 0 },
  });
  expect(demo.status).toBe(0);
}, 60_000);
