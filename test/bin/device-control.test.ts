import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlConnection } from "../../migrate/mod.ts";
import { deviceTypes } from "../../src/frontend/mod.ts";
import { connectUnix, Deadline, disposeAll, POLL, waitReady, waitReadySync } from "../../src/sys/mod.ts";
import { BlkDriver, Driver, DriverMemory } from "../support/driver/mod.ts";
import { startVhu, type VhuProcess } from "../support/vhu-process.ts";
import { runVhu } from "./run-vhu.ts";

const TIMEOUT_MS = 60_000;
const MEMORY_BYTES = 4 << 20;
/** Long enough that a device which runs would have answered. */
const QUIET_MS = 100;

let dir: string;
let image: string;
let socket: string;
let control: string;
let device: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-control-"));
  [image, socket, control] = [join(dir, "disk.raw"), join(dir, "s"), join(dir, "c")];
  device = `device:${control}`;
  writeFileSync(
    image,
    new Uint8Array(1 << 20).map((_, index) => index % 251),
  );
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function startDisk(...args: string[]): Promise<VhuProcess> {
  const vhu = startVhu([
    ...["device", "run", "blk", "--image", image, "--socket", socket, "--control", control],
    ...args,
  ]);
  await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
  return vhu;
}

const diskDriver = (memory: DriverMemory) =>
  new Driver(connectUnix(socket), memory, { type: deviceTypes.blk, queueCount: 1 });

async function ask(verb: string): Promise<Record<string, unknown>> {
  const { status, stdout, stderr } = await runVhu(["device", verb, device, "--json"]);
  expect([status, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
}

test("status, suspend, resume: what they say", async () => {
  await using vhu = await startDisk();
  expect(statSync(control).mode & 0o777).toBe(0o600);
  const running = await ask("status");
  expect(running).toEqual({
    type: "blk",
    pid: vhu.process.pid,
    runState: "running",
    holds: 0,
    frontendConnected: false,
    image: { path: image, capacityBytes: 1 << 20, readOnly: false },
  });
  expect(await ask("suspend")).toEqual({ type: "summary", runState: "suspended", holds: 0 });
  expect(await ask("suspend")).toMatchObject({ runState: "suspended" });
  expect((await runVhu(["device", "status", device])).stdout).toContain(
    `process ${vhu.process.pid}: suspended`,
  );
  expect(await ask("resume")).toEqual({ type: "summary", runState: "running", holds: 0 });
  expect(await ask("resume")).toMatchObject({ runState: "running" });
  expect(await vhu.end("SIGTERM")).toBe(0);
  expect(readdirSync(dir)).toEqual(["disk.raw"]);
});

test("a suspended device answers its front-end and processes nothing, until it is resumed", async () => {
  await using _vhu = await startDisk();
  using memory = new DriverMemory(MEMORY_BYTES);
  using driver = diskDriver(memory);
  driver.start();
  const disk = new BlkDriver(driver, 4096, 2);
  disk.write(0, 0, new Uint8Array(4096).fill(1));
  await ask("suspend");
  const finish = disk.beginWrites(0, [{ offset: 4096, bytes: new Uint8Array(4096).fill(0xff) }]);
  expect(driver.frontend.readConfig(0, 8).length).toBe(8);
  const call = driver.interrupt.callFor(0);
  expect(waitReadySync(call, POLL.IN, new Deadline(QUIET_MS))).toBe(0);
  expect(readFileSync(image).subarray(4096, 8192).includes(0xff)).toBe(false);
  await ask("resume");
  finish();
  expect(disk.read(0, 4096, 4096).every((byte) => byte === 0xff)).toBe(true);
});

test("a front-end that comes, starts rings, stops and goes while the device is suspended", async () => {
  await using _vhu = await startDisk();
  await ask("suspend");
  using memory = new DriverMemory(MEMORY_BYTES);
  {
    using first = diskDriver(memory);
    first.start();
    expect(await ask("status")).toMatchObject({ frontendConnected: true, runState: "suspended" });
    first.sleep();
    expect(first.queues[0]?.base).toBe(0);
  }
  using memory2 = new DriverMemory(MEMORY_BYTES);
  using driver = diskDriver(memory2);
  driver.start();
  const disk = new BlkDriver(driver, 4096, 1);
  const finish = disk.beginWrites(0, [{ offset: 0, bytes: new Uint8Array(4096).fill(7) }]);
  expect(waitReadySync(driver.interrupt.callFor(0), POLL.IN, new Deadline(QUIET_MS))).toBe(0);
  await ask("resume");
  finish();
  expect(
    readFileSync(image)
      .subarray(0, 4096)
      .every((byte) => byte === 7),
  ).toBe(true);
});

test("a connection's hold ends with it, and does not end another suspension", async () => {
  await using vhu = await startDisk();
  const hold = () => {
    const connection = new ControlConnection(connectUnix(control), "the device");
    connection.send({ command: "suspend", hold: "connection" });
    return connection;
  };
  using first = hold();
  await first.receiveAsync(TIMEOUT_MS);
  expect(await ask("status")).toMatchObject({ runState: "suspended", holds: 1 });
  expect(await ask("resume")).toMatchObject({ runState: "suspended", holds: 1 });
  using second = hold();
  await second.receiveAsync(TIMEOUT_MS);
  first[Symbol.dispose]();
  expect(await ask("status")).toMatchObject({ runState: "suspended", holds: 1 });
  second[Symbol.dispose]();
  await vhu.waitForStderr(/resumed/, TIMEOUT_MS);
  expect(await ask("status")).toMatchObject({ runState: "running", holds: 0 });
});

test("the image is given for reading only, and what is no request is refused", async () => {
  await using _vhu = await startDisk();
  using connection = new ControlConnection(connectUnix(control), "the device");
  const request = async (body: unknown) => {
    connection.send(body);
    await waitReady(connection.socket.fd, POLL.IN, new Deadline(TIMEOUT_MS));
    return connection.receive()!;
  };
  const { fds } = await request({ command: "image" });
  expect(fds).toHaveLength(1);
  expect(readFileSync(fds[0]!.number).length).toBe(1 << 20);
  expect(() => writeFileSync(fds[0]!.number, "x")).toThrow("EBADF");
  disposeAll(fds);
  const untracked = await request({ command: "changes" });
  expect(untracked.body).toMatchObject({ ok: false, error: { exitStatus: 1 } });
  const unknown = await request({ command: "format-disk" });
  expect(unknown.body).toMatchObject({ ok: false, error: { exitStatus: 2 } });
});

describe("vhu device copy", () => {
  test("0: the same bytes, mode 0600, no other file, and the device goes on", async () => {
    await using vhu = await startDisk();
    writeFileSync(join(dir, "copy"), "what had the name before", { mode: 0o644 });
    const { status, stdout } = await runVhu(["device", "copy", device, join(dir, "copy"), "--json"]);
    expect(status).toBe(0);
    const summary = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
    expect(summary).toMatchObject({ type: "summary", sizeBytes: 1 << 20, target: join(dir, "copy") });
    expect(Buffer.compare(readFileSync(join(dir, "copy")), readFileSync(image))).toBe(0);
    expect(statSync(join(dir, "copy")).mode & 0o777).toBe(0o600);
    expect(readdirSync(dir).sort()).toEqual(["c", "copy", "disk.raw", "s"]);
    await vhu.waitForStderr(/resumed/, TIMEOUT_MS);
  });

  test("holes stay holes, and a suspended device stays suspended", async () => {
    await Bun.spawn(["truncate", "-s", "64M", image]).exited;
    await using _vhu = await startDisk();
    await ask("suspend");
    expect((await runVhu(["device", "copy", device, join(dir, "copy")])).status).toBe(0);
    const { size, blocks } = statSync(join(dir, "copy"));
    expect(size).toBe(64 << 20);
    expect(blocks * 512).toBeLessThan(8 << 20);
    expect(await ask("status")).toMatchObject({ runState: "suspended" });
  });

  test("1 when the target's disk is full: nothing is left, and the device goes on", async () => {
    await using _vhu = await startDisk();
    const small = `mount -t tmpfs -o size=256k none "$1" && "$2" "$3" device copy "$4" "$1/copy"; echo "status $?"; ls -A "$1"`;
    await Bun.spawn(["mkdir", join(dir, "small")]).exited;
    const vhu = [process.execPath, join(import.meta.dir, "../../bin/vhu.ts")];
    const child = Bun.spawnSync([
      "unshare",
      "-rm",
      "sh",
      "-c",
      small,
      "sh",
      join(dir, "small"),
      ...vhu,
      device,
    ]);
    expect(child.stderr.toString()).toContain("ENOSPC");
    expect(child.stdout.toString()).toBe("status 1\n");
    expect(await ask("status")).toMatchObject({ runState: "running", holds: 0 });
  });

  test("2 for the image itself, a folder, and an address of another kind", async () => {
    await using _vhu = await startDisk();
    for (const target of [image, dir]) {
      expect((await runVhu(["device", "copy", device, target])).status).toBe(2);
    }
    expect((await runVhu(["device", "copy", control, join(dir, "copy")])).status).toBe(2);
    expect(readdirSync(dir).sort()).toEqual(["c", "disk.raw", "s"]);
  });

  test("2 for a device without an image", async () => {
    const args = [
      "device",
      "run",
      "console",
      "--socket",
      socket,
      "--file",
      join(dir, "f"),
      "--control",
      control,
    ];
    await using vhu = startVhu(args);
    await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
    const { status, stderr } = await runVhu(["device", "copy", device, join(dir, "copy")]);
    expect([status, stderr]).toEqual([2, expect.stringContaining("no image")]);
  });

  test("5 where nobody listens", async () => {
    for (const verb of ["status", "suspend", "resume"]) {
      expect((await runVhu(["device", verb, device])).status).toBe(5);
    }
    expect((await runVhu(["device", "copy", device, join(dir, "copy")])).status).toBe(5);
  });

  test("130 by SIGINT: nothing is left, and the device goes on", async () => {
    // Many small extents keep the copy busy for longer than the signal takes.
    const file = openSync(image, "r+");
    for (let index = 0; index < 32_768; index++) writeSync(file, "data", index * 65_536);
    ftruncateSync(file, 32_768 * 65_536);
    closeSync(file);
    await using disk = await startDisk();
    await using copy = startVhu(["device", "copy", device, join(dir, "copy"), "--json"]);
    await disk.waitForStderr(/is tracked for a copy/, TIMEOUT_MS);
    expect(await copy.end("SIGINT")).toBe(130);
    await disk.waitForStderr(/nothing is tracked/, TIMEOUT_MS);
    expect(readdirSync(dir).sort()).toEqual(["c", "disk.raw", "s"]);
  });
});
