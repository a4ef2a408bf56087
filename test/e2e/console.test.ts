import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { consoleFeature, controlEvent } from "../../devices/console/mod.ts";
import { deviceTypes } from "../../src/frontend/mod.ts";
import {
  connectUnix,
  Deadline,
  type Fd,
  libc,
  NativeBuffer,
  O,
  openFile,
  openPty,
  readSome,
  setNonBlocking,
  writeSome,
} from "../../src/sys/mod.ts";
import { PROGRAM, runVhu } from "../bin/run-vhu.ts";
import { ConsoleDriver, Driver, DriverMemory } from "../support/driver/mod.ts";
import { startVhu } from "../support/vhu-process.ts";

const TIMEOUT_MS = 60_000;
const MEMORY_BYTES = 16 << 20;
/** include/uapi/asm-generic/ioctls.h. */
const TIOCSWINSZ = 0x5414;
const PORTS = { tty: 0, log: 1, agent: 2 } as const;
const PORT_COUNT = 3;
const QUEUE_COUNT = 8;
const READY = /ready at/;
const OPTIONS = {
  type: deviceTypes.console,
  queueCount: QUEUE_COUNT,
  deviceFeatures: consoleFeature.MULTIPORT,
};
/** Bytes in each direction of each port, before and after the kill: several times what all buffers hold together. */
const HALF_BYTES = 1 << 20;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-con-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Bytes of a stream: a lost or a repeated one is noticed at once. */
class Stream {
  position = 0;
  constructor(readonly seed: number) {}

  peek(sizeBytes: number): Uint8Array {
    return Uint8Array.from({ length: sizeBytes }, (_, at) => this.#at(this.position + at));
  }

  check(bytes: Uint8Array, what: string): void {
    for (const byte of bytes) {
      if (byte !== this.#at(this.position)) throw new Error(`${what}: wrong byte at ${this.position}`);
      this.position++;
    }
  }

  #at(position: number): number {
    return (this.seed + position * 7 + (position >> 8) * 13 + (position >> 16)) & 0xff;
  }
}

/** What was sent and what has come, in one direction of one port. */
class Direction {
  readonly sent: Stream;
  readonly come: Stream;
  constructor(seed: number) {
    this.sent = new Stream(seed);
    this.come = new Stream(seed);
  }

  send(limit: number, write: (bytes: Uint8Array) => number): void {
    const size = Math.min(1500, limit - this.sent.position);
    if (size > 0) this.sent.position += write(this.sent.peek(size));
  }

  get isComplete(): boolean {
    return this.come.position === this.sent.position;
  }
}

const buffer = new NativeBuffer(1 << 16);

function readFd(fd: Fd, sizeBytes: number): Uint8Array {
  const count = readSome(fd, buffer, 0, sizeBytes);
  return typeof count === "number" ? buffer.bytes.slice(0, count) : new Uint8Array(0);
}

function writeFd(fd: Fd, bytes: Uint8Array): number {
  buffer.bytes.set(bytes);
  const count = writeSome(fd, buffer, 0, bytes.length);
  return typeof count === "number" ? count : 0;
}

class Streams {
  readonly guest = [new Direction(1), new Direction(2), new Direction(3)];
  readonly host = [new Direction(4), new Direction(5), new Direction(6)];

  /** One turn of everybody: guest and host send up to `limit`, and take what has come. */
  turn(guest: ConsoleDriver, ends: ReadonlyMap<number, Fd>, limit: number): void {
    guest.listen();
    for (let port = 0; port < PORT_COUNT; port++) {
      this.guest[port]!.send(limit, (bytes) => guest.write(port, bytes));
      this.host[port]!.come.check(guest.read(port), `host to guest, port ${port}`);
    }
    for (const [port, fd] of ends) {
      this.host[port]!.send(limit, (bytes) => writeFd(fd, bytes));
      // Slower than the guest, so that much is under way all the time.
      this.guest[port]!.come.check(readFd(fd, 1000), `guest to host, port ${port}`);
    }
  }
}

function until(done: () => boolean, turn: () => void): void {
  const deadline = new Deadline(TIMEOUT_MS);
  while (!done()) {
    if (deadline.expired) throw new Error("it did not happen");
    turn();
  }
}

const open = (path: string) => openFile(path, O.RDWR | O.NONBLOCK);
const args = (name: string) => [
  ...["device", "run", "console", "--socket", join(dir, name)],
  ...["--port", `name=tty,pty=${join(dir, "tty")}`, "--port", `name=log,file=${join(dir, "log")}`],
  ...["--port", `name=agent,socket=${join(dir, `${name}-agent`)}`],
];

function connectEnd(name: string) {
  const socket = connectUnix(join(dir, `${name}-agent`));
  setNonBlocking(socket.fd);
  return socket;
}

test(
  "three ports under load go from a killed process to a new one: no byte lost, none repeated, either way",
  async () => {
    const streams = new Streams();
    const chunks: Uint8Array[] = [];
    using stack = new DisposableStack();
    await using first = startVhu(args("a"));
    await first.waitForStderr(READY, TIMEOUT_MS);
    const before = stack.use(new DriverMemory(MEMORY_BYTES));
    const oldDriver = stack.use(new Driver(connectUnix(join(dir, "a")), before, OPTIONS));
    oldDriver.start();
    const oldGuest = new ConsoleDriver(oldDriver, PORT_COUNT);
    oldGuest.begin();
    const oldTty = stack.use(open(join(dir, "tty")));
    const oldAgent = stack.use(connectEnd("a"));
    const oldEnds = new Map([
      [PORTS.tty, oldTty],
      [PORTS.agent, oldAgent.fd],
    ] as [number, Fd][]);
    until(
      () => oldGuest.told.filter(({ event }) => event === controlEvent.PORT_OPEN).length === PORT_COUNT,
      () => oldGuest.listen(),
    );
    until(
      () => [...oldEnds.keys()].every((port) => streams.host[port]!.come.position > HALF_BYTES / 2),
      () => streams.turn(oldGuest, oldEnds, HALF_BYTES),
    );
    // In the middle of everything: nobody waits for what is under way.
    oldDriver.sleep();
    await oldDriver.frontend.saveState((bytes) => chunks.push(bytes.slice()));
    const state = oldDriver.exportState();
    expect(await first.end("SIGKILL")).toBe("SIGKILL");
    // What a socket's client has not read outlives the device's process.
    for (let rest = readFd(oldAgent.fd, 65536); rest.length > 0; rest = readFd(oldAgent.fd, 65536)) {
      streams.guest[PORTS.agent]!.come.check(rest, "the old socket");
    }
    const underWay = [...streams.guest, ...streams.host].filter(({ isComplete }) => !isComplete);
    expect(underWay.length).toBeGreaterThanOrEqual(3);

    await using second = startVhu(args("b"));
    await second.waitForStderr(READY, TIMEOUT_MS);
    const memory = stack.use(new DriverMemory(MEMORY_BYTES, before.regions[0]!.fd.duplicate()));
    const driver = stack.use(new Driver(connectUnix(join(dir, "b")), memory, { ...OPTIONS, state }));
    await driver.frontend.loadState(chunks);
    driver.start();
    const guest = new ConsoleDriver(driver, PORT_COUNT);
    const tty = stack.use(open(join(dir, "tty")));
    // The new end has no client yet, and the guest is told so; then there is one.
    const openings = () => guest.told.filter(({ port }) => port === PORTS.agent).map(({ value }) => value);
    until(
      () => openings().length === 1,
      () => guest.listen(),
    );
    const agent = stack.use(connectEnd("b"));
    const ends = new Map([
      [PORTS.tty, tty],
      [PORTS.agent, agent.fd],
    ] as [number, Fd][]);
    const all = [...streams.guest.filter((_, port) => port !== PORTS.log), ...streams.host];
    until(
      () =>
        all.every(({ isComplete }) => isComplete) &&
        streams.guest.every(({ sent }) => sent.position === 2 * HALF_BYTES),
      () => streams.turn(guest, ends, 2 * HALF_BYTES),
    );
    expect(openings()).toEqual([0, 1]);
    expect(guest.told.every(({ event }) => event === controlEvent.PORT_OPEN)).toBe(true);
    expect(all.map(({ come }) => come.position)).toEqual([2, 2, 2, 0, 2].map((half) => half * HALF_BYTES));
    const log = () => readFileSync(join(dir, "log"));
    until(
      () => log().length === 2 * HALF_BYTES,
      () => Bun.sleepSync(10),
    );
    streams.guest[PORTS.log]!.come.check(log(), "the log");
    expect(readlinkSync(join(dir, "tty"))).toMatch(/^\/dev\/pts\/\d+$/);
  },
  4 * TIMEOUT_MS,
);

test(
  "a console on standard input and output is as large as the terminal there, and follows it",
  async () => {
    using pty = openPty();
    const resize = (columns: number, rows: number) => {
      const size = new NativeBuffer(8);
      size.view.setUint16(0, rows, true);
      size.view.setUint16(2, columns, true);
      expect(libc.ioctl(pty.master.number, TIOCSWINSZ, size.address)).toBe(0);
    };
    resize(100, 30);
    const command = [...PROGRAM, "device", "run", "console", "--socket", join(dir, "s"), "--stdio"];
    const child = Bun.spawn(command, { stdio: [pty.terminal.number, pty.terminal.number, "ignore"] });
    try {
      until(
        () => existsSync(join(dir, "s")) || child.exitCode !== null,
        () => Bun.sleepSync(10),
      );
      using memory = new DriverMemory(MEMORY_BYTES);
      const options = { type: deviceTypes.console, queueCount: 2 };
      using driver = new Driver(connectUnix(join(dir, "s")), memory, options);
      const columns = () => new DataView(driver.frontend.readConfig(0, 4).slice().buffer).getUint16(0, true);
      expect(columns()).toBe(100);
      resize(120, 40);
      child.kill("SIGWINCH");
      until(
        () => columns() === 120,
        () => Bun.sleepSync(10),
      );
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  },
  TIMEOUT_MS,
);

test("the terminal's path is a line of JSON, and its link goes with the process", async () => {
  const port = ["--port", `name=tty,pty=${join(dir, "tty")}`];
  await using vhu = startVhu(["device", "run", "console", "--socket", join(dir, "s"), "--json", ...port]);
  until(
    () => vhu.stdout().split("\n").length > 2,
    () => Bun.sleepSync(10),
  );
  const [line = ""] = vhu.stdout().split("\n");
  expect(JSON.parse(line)).toEqual({
    type: "pty",
    port: 0,
    name: "tty",
    path: readlinkSync(join(dir, "tty")),
  });
  expect(await vhu.end("SIGTERM")).toBe(0);
  expect(existsSync(join(dir, "tty"))).toBe(false);
});

test("1 for a file in a folder that is not there, with what to do", async () => {
  const file = join(dir, "none", "log");
  const { status, stderr } = await runVhu([
    "device",
    "run",
    "console",
    "--socket",
    join(dir, "s"),
    "--file",
    file,
  ]);
  expect([status, stderr]).toEqual([1, expect.stringMatching(/ENOENT[\s\S]*check the path/)]);
  expect(stderr).not.toContain("bug");
});

test.each([
  ["a port without an end", ["--port", "name=x"]],
  ["ports besides another end", ["--port", "pty", "--stdio"]],
  ["two ports of one name", ["--port", "name=x,pty", "--port", "name=x,pty"]],
])("2 for %s", async (_, args) => {
  const { status, stderr } = await runVhu(["device", "run", "console", "--socket", join(dir, "s"), ...args]);
  expect([status, stderr]).toEqual([2, expect.stringMatching(/port/)]);
  expect(existsSync(join(dir, "s"))).toBe(false);
});
