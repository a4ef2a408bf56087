import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { gatherEvidence } from "../../../bin/demo/evidence.ts";
import { ControlClient, MachineDriver } from "../../../migrate/machine/mod.ts";
import { loadMachine, saveMachine } from "../../../migrate/mod.ts";
import { SnapshotReader } from "../../../migrate/snapshot/mod.ts";
import {
  BLOCKS,
  MachineFixture,
  sequenceOf,
  WRITER,
  waitForSequence,
} from "../../support/machine-fixture.ts";

describe("a native machine", () => {
  test("is saved under load, killed, loaded and goes on; nothing is lost, torn or repeated", async () => {
    using fixture = new MachineFixture();
    const { process: first, driver } = await fixture.start();
    const before = await waitForSequence(driver, 600);
    const saved = await saveMachine(driver, fixture.path("m.vhu"), { writer: WRITER, after: "stay" });
    expect(saved.manifest.devices.map(({ name, stateFormat }) => [name, stateFormat])).toEqual([
      ["disk0", "vhu-device-state"],
      ["console0", "vhu-device-state"],
    ]);
    await fixture.kill(first, before);
    driver[Symbol.dispose]();
    using loaded = (await fixture.load("m.vhu")).driver;
    const resumed = await loaded.status();
    expect(sequenceOf(resumed)).toBeGreaterThanOrEqual(sequenceOf(before));
    await waitForSequence(loaded, sequenceOf(resumed) + 600);
    expect(await fixture.verify()).toMatchObject({ checked: BLOCKS, lost: 0, torn: 0, repeated: 0 });
    await loaded.discard();
    await fixture.waitForNoSocket();
    await Bun.sleep(50);
    const evidence = gatherEvidence(fixture.path("disk.img"), fixture.path("console.log"), BLOCKS);
    expect(evidence).toMatchObject({ repeatedLines: 0, missingLines: 0, tornBlocks: 0, lostBlocks: 0 });
    expect(evidence.acknowledged).toBeGreaterThan(1200);
  }, 60_000);

  test("goes on after a save, and through ten saves in a row", async () => {
    using fixture = new MachineFixture();
    using driver = (await fixture.start()).driver;
    for (let i = 0; i < 10; i++) {
      const before = sequenceOf(await waitForSequence(driver, 1));
      await saveMachine(driver, fixture.path("m.vhu"), { writer: WRITER });
      await waitForSequence(driver, before + 50);
    }
    expect(await fixture.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
    using reader = SnapshotReader.open(fixture.path("m.vhu"));
    expect(reader.verify({ deep: true }).ok).toBe(true);
    await driver.discard();
  }, 60_000);

  test("goes on by itself when whoever saves it dies in the middle", async () => {
    using fixture = new MachineFixture();
    using driver = (await fixture.start()).driver;
    await waitForSequence(driver, 50);
    {
      using client = ControlClient.connect(fixture.socket);
      await client.request({ command: "suspend", hold: "connection" });
      expect((await driver.status()).runState).toBe("suspended");
    }
    const before = sequenceOf(await driver.status());
    await waitForSequence(driver, before + 50);
    expect((await driver.status()).runState).toBe("running");
    await driver.discard();
  }, 60_000);

  test("a save that is cancelled leaves the old file and a running machine", async () => {
    using fixture = new MachineFixture();
    using driver = (await fixture.start()).driver;
    await waitForSequence(driver, 50);
    writeFileSync(fixture.path("m.vhu"), "the old file");
    const reason = new Error("enough");
    const abort = new AbortController();
    const save = saveMachine(driver, fixture.path("m.vhu"), {
      writer: WRITER,
      signal: abort.signal,
      onProgress: () => abort.abort(reason),
    });
    await expect(save).rejects.toThrow("enough");
    expect(readFileSync(fixture.path("m.vhu"), "utf8")).toBe("the old file");
    expect(readdirSync(fixture.folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    const before = sequenceOf(await driver.status());
    await waitForSequence(driver, before + 50);
    using client = ControlClient.connect(fixture.socket);
    const late = new AbortController();
    const given = client.request({ command: "suspend", hold: "connection" }, { signal: late.signal });
    late.abort(reason);
    await expect(given).rejects.toThrow("enough");
    // Its answer is not taken for that of the next request.
    expect((await client.request({ command: "status" })).result).toMatchObject({ name: "m" });
    await driver.discard();
  }, 60_000);

  test("a damaged snapshot is refused, and nothing of it runs", async () => {
    using fixture = new MachineFixture();
    await fixture.startSaveKill(300);
    const bytes = readFileSync(fixture.path("m.vhu"));
    using whole = SnapshotReader.open(fixture.path("m.vhu"));
    const extent = whole.extents(0).find(({ frame }) => frame !== undefined)!;
    bytes[extent.frame!.offset + 20]! ^= 1;
    writeFileSync(fixture.path("bad.vhu"), bytes);
    await expect(fixture.load("bad.vhu")).rejects.toThrow(/memory region 0/);
    await fixture.waitForNoSocket();
    using loaded = (await fixture.load("m.vhu")).driver;
    await waitForSequence(loaded, 400);
    await loaded.discard();
  }, 60_000);

  test("a loader that dies before it is done leaves no machine behind", async () => {
    using fixture = new MachineFixture();
    await fixture.startSaveKill(300);
    const args = ["--incoming", "--end-with-loader", "--socket", fixture.socket];
    const early = await fixture.start(args);
    early.driver[Symbol.dispose]();
    await fixture.waitForNoSocket();
    const late = await fixture.start(args);
    using reader = SnapshotReader.open(fixture.path("m.vhu"));
    await late.driver.prepareLoad(reader);
    late.driver[Symbol.dispose]();
    await fixture.waitForNoSocket();
  }, 60_000);

  test("a machine that was loaded paused waits, and goes on when it is resumed", async () => {
    using fixture = new MachineFixture();
    const status = await fixture.startSaveKill(300);
    const { driver: loader } = await fixture.start([
      "--incoming",
      "--end-with-loader",
      "--socket",
      fixture.socket,
    ]);
    using reader = SnapshotReader.open(fixture.path("m.vhu"));
    await loadMachine(loader, reader, { paused: true });
    loader[Symbol.dispose]();
    using client = ControlClient.connect(fixture.socket);
    expect((await client.request({ command: "status" })).result).toMatchObject({ runState: "prepared" });
    await client.request({ command: "resume" });
    using watcher = new MachineDriver(fixture.socket);
    await waitForSequence(watcher, sequenceOf(status) + 50);
    await watcher.discard();
  }, 60_000);

  test("a machine whose back-end is gone is not saved, and the reason is said", async () => {
    using fixture = new MachineFixture();
    using driver = (await fixture.start()).driver;
    const status = await waitForSequence(driver, 50);
    process.kill(status.devices[0]!.pid, "SIGKILL");
    while (!(await driver.status()).devices[0]!.lost) await Bun.sleep(5);
    const save = saveMachine(driver, fixture.path("m.vhu"), { writer: WRITER });
    await expect(save).rejects.toThrow("device disk0: its back-end is gone");
    expect(existsSync(fixture.path("m.vhu"))).toBe(false);
    await driver.discard();
  }, 60_000);

  test("goes as fast as it can without pauses", async () => {
    using fixture = new MachineFixture("pause-ms = 0");
    using driver = (await fixture.start()).driver;
    await waitForSequence(driver, 3000);
    expect(await fixture.verify()).toMatchObject({ checked: BLOCKS, lost: 0, torn: 0, repeated: 0 });
    await driver.discard();
  }, 60_000);

  test("a back-end that cannot start is named, and so is why", async () => {
    const ports = ["[[device]]", 'name = "net0"', 'type = "net"', 'tap = "no/name"', ""].join("\n");
    using fixture = new MachineFixture(ports);
    await expect(fixture.start()).rejects.toThrow(
      /"no\/name" is no name of a network interface[\s\S]*the back-end of net0 \(net\) does not serve/,
    );
  }, 60_000);

  test("commands in the wrong state are refused and leave the machine as it was", async () => {
    using fixture = new MachineFixture();
    using driver = (await fixture.start()).driver;
    using client = ControlClient.connect(fixture.socket);
    await expect(client.request({ command: "resume" })).rejects.toThrow("not suspended");
    await expect(client.request({ command: "export" })).rejects.toThrow("suspend it first");
    await expect(client.request({ command: "state-check", device: "nope" })).rejects.toThrow(
      'no device "nope"',
    );
    await expect(client.request({ command: "build", config: {} })).rejects.toThrow("file descriptor");
    await client.request({ command: "suspend", hold: "until-resumed" });
    await expect(client.request({ command: "suspend", hold: "connection" })).rejects.toThrow("not running");
    await client.request({ command: "resume" });
    await waitForSequence(driver, 50);
    await driver.discard();
  }, 60_000);
});
