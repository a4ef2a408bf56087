import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deviceTypes } from "../../src/frontend/mod.ts";
import {
  connectUnix,
  Deadline,
  NativeBuffer,
  POLL,
  readSome,
  UnixSocket,
  waitReadySync,
} from "../../src/sys/mod.ts";
import { PROGRAM, runVhu } from "../bin/run-vhu.ts";
import { BlkDriver, Driver, DriverMemory, type DriverState } from "../support/driver/mod.ts";
import { startVhu } from "../support/vhu-process.ts";

const TIMEOUT_MS = 60_000;
const MEMORY_BYTES = 16 << 20;

let dir: string;
let image: string;
let socket: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-run-"));
  image = join(dir, "disk.raw");
  socket = join(dir, "s");
  writeFileSync(image, new Uint8Array(1 << 20));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const blk = (...args: string[]) => ["device", "run", "blk", "--image", image, ...args];
const READY = /ready (at|on)/;

describe("vhu device run: exit status", () => {
  test("0 by SIGTERM, and the socket's file is gone", async () => {
    await using vhu = startVhu(blk("--socket", socket));
    await vhu.waitForStderr(READY, TIMEOUT_MS);
    expect(existsSync(socket)).toBe(true);
    expect(await vhu.end("SIGTERM")).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  test("130 by SIGINT, and the socket's file is gone", async () => {
    await using vhu = startVhu(blk("--socket-path", socket));
    await vhu.waitForStderr(READY, TIMEOUT_MS);
    expect(await vhu.end("SIGINT")).toBe(130);
    expect(existsSync(socket)).toBe(false);
  });

  test("0 with --once when the front-end has gone", async () => {
    await using vhu = startVhu(blk("--socket", socket, "--once"));
    await vhu.waitForStderr(READY, TIMEOUT_MS);
    connectUnix(socket)[Symbol.dispose]();
    expect(await vhu.process.exited).toBe(0);
    expect(existsSync(socket)).toBe(false);
  });

  test("1 for an image that is not there", async () => {
    const { status, stderr } = await runVhu([
      "device",
      "run",
      "blk",
      "--socket",
      socket,
      "--image",
      join(dir, "none"),
    ]);
    expect([status, stderr]).toEqual([1, expect.stringContaining("ENOENT")]);
    expect(existsSync(socket)).toBe(false);
  });

  test("1 with --once when the front-end breaks the protocol", async () => {
    await using vhu = startVhu(blk("--socket", socket, "--once"));
    await vhu.waitForStderr(READY, TIMEOUT_MS);
    using client = connectUnix(socket);
    client.send(new NativeBuffer(12), 0, 12);
    expect(await vhu.process.exited).toBe(1);
  });

  test("5 with --once when the front-end dies in the middle of a message", async () => {
    await using vhu = startVhu(blk("--socket", socket, "--once"));
    await vhu.waitForStderr(READY, TIMEOUT_MS);
    const client = connectUnix(socket);
    client.send(new NativeBuffer(12), 0, 5);
    client[Symbol.dispose]();
    expect(await vhu.process.exited).toBe(5);
  });

  test.each([
    ["no place to serve at", () => []],
    ["two places", () => ["--socket", socket, "--fd", "3"]],
    ["an fd that is none", () => ["--fd", "77"]],
    ["a number that is none", () => ["--fd", "x"]],
    ["too many queues", () => ["--socket", socket, "--num-queues", "257"]],
    ["a long id", () => ["--socket", socket, "--id", "x".repeat(21)]],
    ["a path that is no socket", () => ["--socket", image]],
  ])("2 for %s", async (_, args) => {
    const { status, stderr } = await runVhu(blk(...args()));
    expect(status).toBe(2);
    expect(stderr).toMatch(/^vhu: /);
  });

  test("2 for a path where another one serves, which goes on", async () => {
    await using vhu = startVhu(blk("--socket", socket));
    await vhu.waitForStderr(READY, TIMEOUT_MS);
    const { status, stderr } = await runVhu(blk("--socket", socket));
    expect([status, stderr]).toEqual([2, expect.stringContaining("another process listens")]);
    connectUnix(socket)[Symbol.dispose]();
    await vhu.waitForStderr(/front-end disconnected/, TIMEOUT_MS);
  });

  test("2 for a console without an end, or with two", async () => {
    const console = ["device", "run", "console", "--socket", socket];
    expect((await runVhu(console)).status).toBe(2);
    expect((await runVhu([...console, "--stdio", "--file", join(dir, "f")])).status).toBe(2);
  });
});

describe("vhu device run: what it says", () => {
  test("its capabilities, without an image or a socket", async () => {
    const disk = await runVhu(["device", "run", "blk", "--print-capabilities"]);
    expect([disk.status, JSON.parse(disk.stdout)]).toEqual([
      0,
      { type: "block", features: ["blk-file", "read-only"] },
    ]);
    const con = await runVhu(["device", "run", "console", "--print-capabilities"]);
    expect(JSON.parse(con.stdout).type).toBe("console");
  });

  test("JSON lines with --json: ready on stdout, logs on stderr", async () => {
    await using vhu = startVhu(blk("--socket", socket, "--json", "--once"));
    const end = performance.now() + TIMEOUT_MS;
    while (!vhu.stdout().includes("\n") && performance.now() < end) await Bun.sleep(10);
    expect(JSON.parse(vhu.stdout())).toEqual({ type: "ready", socket });
    connectUnix(socket)[Symbol.dispose]();
    await vhu.process.exited;
    const lines = vhu
      .stderr()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines.map((line) => [line.type, line.message])).toEqual([
      ["log", "front-end connected"],
      ["log", "front-end disconnected"],
    ]);
  });

  test("EXAMPLES and EXIT STATUS in the help of each type", async () => {
    for (const type of ["blk", "console"]) {
      const { stdout } = await runVhu(["device", "run", type, "--help"]);
      expect(stdout).toContain("EXAMPLES");
      expect(stdout).toContain("EXIT STATUS");
    }
  });
});

test("a connected socket from the parent process, with --fd", async () => {
  const [ours, theirs] = UnixSocket.pair();
  const child = Bun.spawn([...PROGRAM, ...blk("--fd", "3")], {
    stdio: ["ignore", "ignore", "ignore", theirs.fd.number],
  });
  theirs[Symbol.dispose]();
  {
    using memory = new DriverMemory(MEMORY_BYTES);
    using driver = new Driver(ours, memory, { type: deviceTypes.blk, queueCount: 1 });
    driver.start();
    const disk = new BlkDriver(driver, 4096);
    const bytes = new Uint8Array(4096).fill(0x5a);
    disk.write(0, 8192, bytes);
    expect(Buffer.compare(disk.read(0, 8192, 4096), bytes)).toBe(0);
  }
  expect(await child.exited).toBe(0);
  expect(
    readFileSync(image)
      .subarray(8192, 12288)
      .every((byte) => byte === 0x5a),
  ).toBe(true);
});

test(
  "a console's state goes from a killed process to a new one: no byte lost, none repeated",
  async () => {
    const args = (name: string) => [
      ...["device", "run", "console", "--socket", join(dir, name)],
      ...["--socket-end", join(dir, `${name}-end`), "--size", "100x30"],
    ];
    await using first = startVhu(args("a"));
    await first.waitForStderr(READY, TIMEOUT_MS);
    const options = { type: deviceTypes.console, queueCount: 2 };
    using before = new DriverMemory(MEMORY_BYTES);
    const chunks: Uint8Array[] = [];
    let state: DriverState;
    {
      using driver = new Driver(connectUnix(join(dir, "a")), before, options);
      driver.start();
      expect(new DataView(driver.frontend.readConfig(0, 4).buffer).getUint16(0, true)).toBe(100);
      // No client takes it: it stays in the device.
      guestWrites(driver, before, "0123456789");
      driver.sleep();
      await driver.frontend.saveState((bytes) => chunks.push(bytes.slice()));
      state = driver.exportState();
    }
    expect(await first.end("SIGKILL")).toBe("SIGKILL");
    await using second = startVhu(args("b"));
    await second.waitForStderr(READY, TIMEOUT_MS);
    using memory = new DriverMemory(MEMORY_BYTES, before.regions[0]!.fd.duplicate());
    using driver = new Driver(connectUnix(join(dir, "b")), memory, { ...options, state });
    await driver.frontend.loadState(chunks);
    driver.start();
    guestWrites(driver, memory, "abcdef");
    using client = connectUnix(join(dir, "b-end"));
    expect(readText(client, 16)).toBe("0123456789abcdef");
    client.send(NativeBuffer.cString("typed"), 0, 5);
    const guestAddress = memory.allocate(64);
    const count = driver.run(0, [{ guestAddress, sizeBytes: 64, writable: true }]);
    expect(new TextDecoder().decode(memory.read(guestAddress, count))).toBe("typed");
  },
  2 * TIMEOUT_MS,
);

function guestWrites(driver: Driver, memory: DriverMemory, text: string): void {
  const guestAddress = memory.allocate(text.length);
  memory.write(guestAddress, new TextEncoder().encode(text));
  driver.run(1, [{ guestAddress, sizeBytes: text.length, writable: false }]);
}

function readText(socket: UnixSocket, sizeBytes: number): string {
  const buffer = new NativeBuffer(256);
  const deadline = new Deadline(TIMEOUT_MS);
  let text = "";
  while (text.length < sizeBytes && waitReadySync(socket.fd, POLL.IN, deadline) !== 0) {
    const count = readSome(socket.fd, buffer);
    if (typeof count !== "number" || count === 0) break;
    text += new TextDecoder().decode(buffer.bytes.subarray(0, count));
  }
  return text;
}
