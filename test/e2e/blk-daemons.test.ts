import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deviceTypes } from "../../src/frontend/mod.ts";
import { connectUnix, drainEvent } from "../../src/sys/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { BlkDriver, Driver, DriverMemory } from "../support/driver/mod.ts";
import { runBeside, until } from "../support/loop.ts";
import { startVhu, type VhuProcess } from "../support/vhu-process.ts";

const TIMEOUT_MS = 60_000;
const MEMORY_BYTES = 16 << 20;

let dir: string;
let image: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-run-"));
  image = join(dir, "disk.raw");
  writeFileSync(image, new Uint8Array(1 << 20));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function startBlk(name: string, ...args: string[]): Promise<VhuProcess> {
  const vhu = startVhu(["device", "run", "blk", "--image", image, "--socket", join(dir, name), ...args]);
  await vhu.waitForStderr(/ready (at|on)/, TIMEOUT_MS);
  return vhu;
}

/** A driver behind the daemon called `name`, not started. */
function connect(name: string) {
  const stack = new DisposableStack();
  const memory = stack.use(new DriverMemory(MEMORY_BYTES));
  const options = { type: deviceTypes.blk, queueCount: 1 };
  const driver = stack.use(new Driver(connectUnix(join(dir, name)), memory, options));
  return {
    driver,
    start: () => {
      driver.start();
      return new BlkDriver(driver, 4096);
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}

test(
  "two daemons on one image: the second cannot start until the first is suspended, and both say why",
  async () => {
    await using _first = await startBlk("a");
    await using second = await startBlk("b");
    await using third = await startBlk("c", "--no-lock");
    using a = connect("a");
    const disk = a.start();
    disk.write(0, 0, new Uint8Array(4096).fill(0x61));
    {
      using b = connect("b");
      expect(b.start).toThrow();
      await second.waitForStderr(new RegExp(`the image ${image} is in use by another program`), TIMEOUT_MS);
    }
    {
      using c = connect("c");
      expect(c.start().read(0, 0, 4096)[0]).toBe(0x61);
    }
    a.driver.sleep();
    using b = connect("b");
    const moved = b.start();
    moved.write(0, 0, new Uint8Array(4096).fill(0x62));
    expect(moved.read(0, 0, 4096)[0]).toBe(0x62);
    expect(third.stderr()).not.toContain("in use");
  },
  2 * TIMEOUT_MS,
);

test(
  "vhu device resize after the image grew: the driver is told, and uses what is new",
  async () => {
    const control = join(dir, "ctl");
    await using _vhu = await startBlk("a", "--control", control);
    using a = connect("a");
    const disk = a.start();
    const capacity = () =>
      Number(new DataView(a.driver.frontend.readConfig(0, 8).slice().buffer).getBigUint64(0, true)) * 512;
    const resize = () => runVhu(["device", "resize", `device:${control}`]);
    expect(capacity()).toBe(1 << 20);
    truncateSync(image, 3 << 20);
    expect(await resize()).toMatchObject({ status: 0, stdout: expect.stringContaining("3 MiB") });
    expect(capacity()).toBe(3 << 20);
    const bytes = new Uint8Array(4096).fill(0x77);
    disk.write(0, 2 << 20, bytes);
    expect(Buffer.compare(disk.read(0, 2 << 20, 4096), bytes)).toBe(0);
    {
      using _running = runBeside(a.driver.loop);
      await until(() => drainEvent(a.driver.interrupt.configChange), TIMEOUT_MS);
    }
    truncateSync(image, 100);
    expect(await resize()).toMatchObject({ status: 2, stderr: expect.stringContaining("multiple of 512") });
    expect(capacity()).toBe(3 << 20);
  },
  2 * TIMEOUT_MS,
);

test(
  "options of the data path: two Workers, no spinning, O_DIRECT, and what cannot be",
  async () => {
    await using _vhu = await startBlk(
      "a",
      "--num-queues",
      "2",
      "--workers",
      "2",
      "--spin-us",
      "0",
      "--direct",
    );
    using a = connect("a");
    const disk = a.start();
    for (const [i, fill] of [0x31, 0x32, 0x33].entries()) {
      disk.write(0, i * 4096, new Uint8Array(4096).fill(fill));
      expect(disk.read(0, i * 4096, 4096).every((byte) => byte === fill)).toBe(true);
    }
    const refused = startVhu([
      ...["device", "run", "blk", "--image", image, "--socket", join(dir, "b"), "--workers", "2"],
    ]);
    expect(await refused.process.exited).toBe(2);
    expect(refused.stderr()).toContain("2 ring Workers need as many queues");
    await refused[Symbol.asyncDispose]();
  },
  2 * TIMEOUT_MS,
);
