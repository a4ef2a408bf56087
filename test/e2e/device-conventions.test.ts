import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deviceTypes } from "../../src/frontend/mod.ts";
import { connectUnix, Deadline, UnixListener } from "../../src/sys/mod.ts";
import { PROGRAM, runVhu } from "../bin/run-vhu.ts";
import { BlkDriver, Driver, DriverMemory } from "../support/driver/mod.ts";
import { ROOT } from "../support/source-files.ts";
import { startVhu } from "../support/vhu-process.ts";

const TIMEOUT_MS = 60_000;
const MEMORY_BYTES = 4 << 20;
const BYTES = new Uint8Array(4096).fill(0x5a);

let dir: string;
let image: string;
let socket: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-conventions-"));
  [image, socket] = [join(dir, "disk.raw"), join(dir, "s")];
  writeFileSync(image, new Uint8Array(1 << 20));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const blk = (...args: string[]) => ["device", "run", "blk", "--image", image, ...args];

function writeAndRead(socket: ReturnType<typeof connectUnix>): void {
  using memory = new DriverMemory(MEMORY_BYTES);
  using driver = new Driver(socket, memory, { type: deviceTypes.blk, queueCount: 1 });
  driver.start();
  const disk = new BlkDriver(driver, 4096);
  disk.write(0, 8192, BYTES);
  expect(Buffer.compare(disk.read(0, 8192, 4096), BYTES)).toBe(0);
}

describe("--connect", () => {
  test("a front-end that listens later, and again after it has gone", async () => {
    await using vhu = startVhu(blk("--connect", socket));
    await vhu.waitForStderr(/ready for the front-end at/, TIMEOUT_MS);
    using listener = UnixListener.listen(socket);
    for (let times = 0; times < 2; times++) {
      writeAndRead(listener.acceptBefore(new Deadline(TIMEOUT_MS))!);
    }
    expect(await vhu.end("SIGTERM")).toBe(0);
  });

  test("0 with --once when the front-end has gone", async () => {
    using listener = UnixListener.listen(socket);
    await using vhu = startVhu(blk("--connect", socket, "--once"));
    writeAndRead(listener.acceptBefore(new Deadline(TIMEOUT_MS))!);
    expect(await vhu.process.exited).toBe(0);
  });

  test("5 when nobody listens for too long", async () => {
    const { status, stderr } = await runVhu(blk("--connect", socket, "--connect-timeout-ms", "200"));
    expect([status, stderr]).toEqual([5, expect.stringContaining("no front-end within 200 ms")]);
  });
});

test("a listening socket from the parent process, with --fd: one front-end after the other", async () => {
  using listener = UnixListener.listen(socket);
  const child = Bun.spawn([...PROGRAM, ...blk("--fd", "3")], {
    stdio: ["ignore", "ignore", "ignore", listener.fd.number],
  });
  writeAndRead(connectUnix(socket));
  writeAndRead(connectUnix(socket));
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  // Whoever bound it removes it.
  expect(existsSync(socket)).toBe(true);
});

test("it never becomes a daemon: the process that was started serves, in its own session", async () => {
  await using vhu = startVhu(blk("--socket", socket));
  await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
  const client = connectUnix(socket);
  expect(client.peerCredentials().pid).toBe(vhu.process.pid);
  client[Symbol.dispose]();
});

test("it serves on when whoever read its log has gone", async () => {
  const child = Bun.spawn([...PROGRAM, ...blk("--socket", socket)], { stdio: ["ignore", "ignore", "pipe"] });
  const log = child.stderr.getReader();
  let text = "";
  while (!text.includes("ready")) text += new TextDecoder().decode((await log.read()).value);
  await log.cancel();
  for (let times = 0; times < 2; times++) writeAndRead(connectUnix(socket));
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
});

describe("docs/vhost-user.d", () => {
  const folder = join(ROOT, "docs/vhost-user.d");
  const descriptions = readdirSync(folder).filter((name) => name.endsWith(".json"));

  test.each(descriptions)("%s says what its program says", async (name) => {
    const { description, type, binary } = JSON.parse(readFileSync(join(folder, name), "utf8"));
    expect(description).toMatch(/^vhu /);
    // Installed as the description has it, with vhu on the PATH.
    const bin = join(dir, "bin");
    await Bun.spawn(["mkdir", bin]).exited;
    writeFileSync(
      join(bin, "vhu"),
      `#!/bin/sh\nexec ${PROGRAM.map((word) => `"${word}"`).join(" ")} "$@"\n`,
      { mode: 0o755 },
    );
    const program = join(bin, binary.split("/").at(-1));
    symlinkSync(join(folder, "vhu-device"), program);
    const child = Bun.spawn([program, "--print-capabilities"], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
    });
    expect(JSON.parse(await child.stdout.text()).type).toBe(type);
    expect(await child.exited).toBe(0);
  });

  test("each type of device has one", async () => {
    const { stdout } = await runVhu(["device", "run", "--help"]);
    const types = [...stdout.matchAll(/^ {2}([a-z]+)(?: \[options\])? {2,}/gm)].map(([, type]) => type);
    expect(types.length).toBeGreaterThan(1);
    for (const type of types.filter((type) => type !== "help")) {
      expect(descriptions).toContain(`50-vhu-${type}.json`);
    }
  });
});
