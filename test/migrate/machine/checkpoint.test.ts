import { expect, test } from "bun:test";
import { ControlClient } from "../../../migrate/machine/mod.ts";
import { saveMachine } from "../../../migrate/mod.ts";
import { loadMemory } from "../../../migrate/ram/mod.ts";
import { SnapshotReader } from "../../../migrate/snapshot/mod.ts";
import { Mapping, sizeOf } from "../../../src/sys/mod.ts";
import { MachineFixture, sequenceOf, WRITER, waitForSequence } from "../../support/machine-fixture.ts";

async function memoryOf(reader: SnapshotReader): Promise<Buffer> {
  using fd = await loadMemory(reader, reader.memoryMap[0]!);
  using mapping = Mapping.ofFd(fd, { sizeBytes: sizeOf(fd), readOnly: true });
  return Buffer.from(new Uint8Array(mapping.window(0, mapping.sizeBytes)).slice());
}

const bytesOf = (reader: SnapshotReader, kind: string) =>
  reader.extents(0).reduce((sum, extent) => sum + (extent.kind === kind ? extent.sizeBytes : 0), 0);

test("a series of saves, live or not, stores what the dirty log says, and that is all that has changed", async () => {
  using fixture = new MachineFixture();
  using driver = (await fixture.start()).driver;
  await waitForSequence(driver, 50);
  const options = { writer: WRITER, track: true } as const;
  const first = await saveMachine(driver, fixture.path("0.vhu"), options);
  expect(first.trackObstacle).toBeUndefined();
  expect(first.changesBy).toBeUndefined();
  for (let index = 1; index <= 4; index++) {
    await waitForSequence(driver, sequenceOf(await driver.status()) + 50);
    using base = SnapshotReader.open(fixture.path(`${index - 1}.vhu`));
    const mode = index % 2 === 1 ? "live" : "stopped";
    const { changesBy } = await saveMachine(driver, fixture.path(`${index}.vhu`), {
      ...{ ...options, base, mode, after: "stay" },
    });
    expect(changesBy).toMatchObject({ way: "dirty log" });
    const { pageCount } = changesBy as { pageCount: number };
    expect(pageCount).toBeGreaterThan(0);
    expect(pageCount).toBeLessThan((8 << 20) / 4096);
    // Not by comparing: what was not marked is left to the base, whatever it holds.
    await saveMachine(driver, fixture.path("full.vhu"), { writer: WRITER, after: "stay" });
    using reader = SnapshotReader.open(fixture.path(`${index}.vhu`));
    using full = SnapshotReader.open(fixture.path("full.vhu"));
    expect(Buffer.compare(await memoryOf(reader), await memoryOf(full))).toBe(0);
    expect(bytesOf(reader, "parent")).toBeGreaterThan(0);
    using client = ControlClient.connect(fixture.socket);
    await client.request({ command: "resume" });
  }
  expect(await fixture.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
  await driver.discard();
}, 60_000);

test("without the log of this very base, a live save is compared with it, and says how", async () => {
  using fixture = new MachineFixture();
  using driver = (await fixture.start()).driver;
  await waitForSequence(driver, 50);
  for (const [name, track] of [
    ["plain.vhu", false],
    ["hashed.vhu", true],
    ["later.vhu", true],
  ] as const)
    await saveMachine(driver, fixture.path(name), { writer: WRITER, track });
  for (const [name, way] of [
    ["plain.vhu", "all bytes"],
    ["hashed.vhu", "page hashes"],
    ["later.vhu", "dirty log"],
  ]) {
    using base = SnapshotReader.open(fixture.path(name!));
    const { changesBy } = await saveMachine(driver, fixture.path("next.vhu"), {
      ...{ writer: WRITER, mode: "live", base, after: "stay" },
    });
    expect(changesBy).toMatchObject({ way });
    await saveMachine(driver, fixture.path("full.vhu"), { writer: WRITER, after: "stay" });
    using next = SnapshotReader.open(fixture.path("next.vhu"));
    using full = SnapshotReader.open(fixture.path("full.vhu"));
    expect(Buffer.compare(await memoryOf(next), await memoryOf(full))).toBe(0);
    using client = ControlClient.connect(fixture.socket);
    await client.request({ command: "resume" });
  }
  await driver.discard();
}, 60_000);

test("the machine has run since: it is not as it was saved, and is not taken for it", async () => {
  using fixture = new MachineFixture();
  using driver = (await fixture.start()).driver;
  await waitForSequence(driver, 50);
  const { root } = await saveMachine(driver, fixture.path("0.vhu"), { writer: WRITER });
  await expect(driver.noteSaved(root)).rejects.toThrow("no longer as it was saved");
  using client = ControlClient.connect(fixture.socket);
  await client.request({ command: "suspend", hold: "until-resumed" });
  await expect(driver.noteSaved(root)).rejects.toThrow("no longer as it was saved");
  await driver.discard();
}, 60_000);
