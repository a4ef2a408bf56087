import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { ControlClient, MachineDriver } from "../../../migrate/machine/mod.ts";
import type { PassReport } from "../../../migrate/mod.ts";
import { loadMachine, NotConvergingError, saveMachine } from "../../../migrate/mod.ts";
import { SnapshotReader } from "../../../migrate/snapshot/mod.ts";
import { CompatibilityError } from "../../../src/errors.ts";
import { identityOf, isRunning } from "../../../src/sys/mod.ts";
import {
  BLOCKS,
  MachineFixture,
  sequenceOf,
  WRITER,
  waitForSequence,
} from "../../support/machine-fixture.ts";

const live = { writer: WRITER, mode: "live" } as const;

test("a machine under load is copied while it runs, killed, loaded and goes on; nothing is lost, torn or repeated", async () => {
  using fixture = new MachineFixture();
  const { process: first, driver } = await fixture.start();
  const before = await waitForSequence(driver, 600);
  const passes: PassReport[] = [];
  await saveMachine(driver, fixture.path("m.vhu"), {
    ...live,
    after: "stay",
    onPass: (pass) => passes.push(pass),
  });
  expect(passes[0]).toMatchObject({ passNumber: 0, sentBytes: 8 << 20 });
  expect(passes[0]!.dirtyBytes).toBeGreaterThan(0);
  expect(passes[0]!.dirtyBytes).toBeLessThan(8 << 20);
  const at = sequenceOf(await driver.status());
  await fixture.kill(first, before);
  driver[Symbol.dispose]();
  using reader = SnapshotReader.open(fixture.path("m.vhu"));
  expect(reader.verify({ deep: true }).ok).toBe(true);
  using loaded = (await fixture.load("m.vhu")).driver;
  expect(sequenceOf(await loaded.status())).toBeGreaterThanOrEqual(at);
  await waitForSequence(loaded, at + 600);
  expect(await fixture.verify()).toMatchObject({ checked: BLOCKS, lost: 0, torn: 0, repeated: 0 });
  await loaded.discard();
}, 60_000);

test("it goes on afterwards, many times; also when the save is cancelled in the middle, or the connection is cut", async () => {
  using fixture = new MachineFixture();
  using driver = (await fixture.start()).driver;
  for (let round = 0; round < 5; round++) {
    const before = sequenceOf(await waitForSequence(driver, 1));
    await saveMachine(driver, fixture.path("m.vhu"), live);
    await waitForSequence(driver, before + 50);
  }
  const abort = new AbortController();
  const cancelled = saveMachine(driver, fixture.path("m.vhu"), {
    ...live,
    signal: abort.signal,
    onPass: () => abort.abort(new Error("enough")),
  });
  expect(cancelled).rejects.toThrow("enough");
  await cancelled.catch(() => {});
  await waitForSequence(driver, sequenceOf(await driver.status()) + 50);
  {
    using client = ControlClient.connect(fixture.socket);
    const { fds } = await client.request({ command: "precopy-begin" });
    for (const fd of fds) fd[Symbol.dispose]();
    await client.request({ command: "throttle", percent: 99 });
    await client.request({ command: "suspend", hold: "connection" });
  }
  await waitForSequence(driver, sequenceOf(await driver.status()) + 200);
  expect(await fixture.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
  await driver.discard();
}, 60_000);

test("a machine that changes its memory too fast: said, and it runs on; a longer pause or a throttle gets it through", async () => {
  using fixture = new MachineFixture();
  using driver = (await fixture.start()).driver;
  await waitForSequence(driver, 100);
  // Nothing that takes time fits into no pause at all.
  const hurried = saveMachine(driver, fixture.path("m.vhu"), { ...live, downtimeMaxMs: 0 });
  expect(hurried).rejects.toBeInstanceOf(NotConvergingError);
  await hurried.catch(() => {});
  await waitForSequence(driver, sequenceOf(await driver.status()) + 50);
  const enough = new AbortController();
  const slowed = saveMachine(driver, fixture.path("m.vhu"), {
    ...live,
    downtimeMaxMs: 0,
    throttle: true,
    signal: enough.signal,
    onPass: ({ throttlePercent = 0 }) => throttlePercent >= 40 && enough.abort(new Error("slow enough")),
  });
  expect(slowed).rejects.toThrow("slow enough");
  await slowed.catch(() => {});
  await saveMachine(driver, fixture.path("m.vhu"), { ...live, downtimeMaxMs: 10_000 });
  await waitForSequence(driver, sequenceOf(await driver.status()) + 50);
  expect(driver.startPrecopy(undefined as never, { throttle: "dirty-limit" })).rejects.toBeInstanceOf(
    CompatibilityError,
  );
  await driver.discard();
}, 120_000);

test("released, it resumes for nobody, also when the connection ends; recovery takes it back", async () => {
  using fixture = new MachineFixture();
  const { driver } = await fixture.start();
  await waitForSequence(driver, 50);
  await saveMachine(driver, fixture.path("m.vhu"), { ...live, after: "stay" });
  await driver.release();
  await driver.resume();
  driver[Symbol.dispose]();
  using client = ControlClient.connect(fixture.socket);
  expect(client.request({ command: "resume" })).rejects.toThrow("given up for another host");
  await Bun.sleep(50);
  const { result } = await client.request({ command: "status" });
  expect(result).toMatchObject({ runState: "suspended" });
  using again = new MachineDriver(fixture.socket);
  await again.reclaim();
  await waitForSequence(again, sequenceOf(await again.status()) + 50);
  expect(again.release()).rejects.toThrow("suspend it first");
  expect(await fixture.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
  await again.discard();
}, 60_000);

test("the back-ends of a machine that is expected are up before it comes, and end if it never does", async () => {
  using fixture = new MachineFixture();
  const { process: first, driver } = await fixture.start();
  const before = await waitForSequence(driver, 50);
  const { manifest } = await saveMachine(driver, fixture.path("m.vhu"), { ...live, after: "stay" });
  await fixture.kill(first, before);
  driver[Symbol.dispose]();
  const incoming = await fixture.start(["--incoming", "--socket", fixture.socket]);
  using target = incoming.driver;
  await target.prepareIncoming({ machine: manifest.machine! });
  const waiting = childrenOf(incoming.process.pid);
  expect(waiting.length).toBe(2);
  using reader = SnapshotReader.open(fixture.path("m.vhu"));
  await loadMachine(target, reader);
  const { devices } = await target.status();
  expect(devices.map(({ pid }) => pid).sort()).toEqual(waiting);
  expect(target.prepareIncoming({ machine: manifest.machine! })).rejects.toThrow("has a machine already");
  await waitForSequence(target, sequenceOf(before) + 50);
  expect(await fixture.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
  await target.discard();
  await fixture.waitForNoSocket();
  const another = await fixture.start(["--incoming", "--socket", fixture.socket]);
  using unused = another.driver;
  await unused.prepareIncoming({ machine: manifest.machine! });
  const orphans = childrenOf(another.process.pid).map((pid) => identityOf(pid)!);
  await unused.discard();
  for (let i = 0; i < 1000 && orphans.some(isRunning); i++) await Bun.sleep(5);
  expect(orphans.filter(isRunning)).toEqual([]);
}, 60_000);

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return text.split(" ").map(Number).sort();
}
