import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MachineDriver, type MachineStatus } from "../../migrate/machine/mod.ts";
import { NumberedLines, numberedLine } from "../../migrate/machine/numbered-lines.ts";
import {
  connectUnix,
  type Fd,
  NativeBuffer,
  O,
  openFile,
  readSome,
  setNonBlocking,
  writeSome,
} from "../../src/sys/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { Peer, wire } from "../devices/net/stream-peer.ts";
import { startVhu } from "../support/vhu-process.ts";

const TIMEOUT_MS = 60_000;
const POLL_MS = 2;
const LINES_AT_ONCE = 10;
/** What each side writes before the save and after the load, at least. */
const LINES = 300;
const FRAMES = 200;
const ANSWERS = 100;

let dir: string;
const path = (name: string) => join(dir, name);
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-md-"));
  writeFileSync(path("m.toml"), MACHINE);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const MACHINE = `name = "m"
socket = "m.sock"
[memory]
size-mib = 8
[[device]]
name = "con0"
type = "console"
[[device.port]]
name = "tty"
pty = "tty"
[[device.port]]
name = "log, of the guest"
file = "guest.log"
[[device.port]]
name = "agent"
socket = "agent.sock"
[[device]]
name = "rng0"
type = "rng"
max-bytes = 2048
period-ms = 20
[[device]]
name = "net0"
type = "net"
stream-listen = "net.sock"
mac = "52:54:00:00:00:09"
[[workload]]
kind = "lines"
console = "con0"
[[workload]]
kind = "random"
source = "rng0"
bytes = 512
[[workload]]
kind = "frames"
interface = "net0"
`;

const buffer = new NativeBuffer(1 << 16);

/** The host's side of one port: writes numbered lines and expects the same. */
class HostPort {
  readonly received = new NumberedLines();
  sent = 0;
  #pending = Buffer.alloc(0);

  turn(fd: Fd, mayWrite: boolean): void {
    this.read(fd);
    if (!mayWrite) return;
    if (this.#pending.length === 0) {
      const lines = Array.from({ length: LINES_AT_ONCE }, () => numberedLine(++this.sent));
      this.#pending = Buffer.from(lines.join(""));
    }
    buffer.bytes.set(this.#pending);
    const count = writeSome(fd, buffer, 0, this.#pending.length);
    if (typeof count === "number") this.#pending = this.#pending.subarray(count);
  }

  read(fd: Fd): number {
    const count = readSome(fd, buffer, 0, buffer.sizeBytes);
    if (typeof count !== "number") return 0;
    this.received.push(buffer.bytes.slice(0, count));
    return count;
  }
}

/** Whoever is at the other ends of the machine's console and network. */
class Host {
  readonly tty = new HostPort();
  readonly agent = new HostPort();
  frames = 0;
  mayWrite = true;
  #stack = new DisposableStack();
  #ends: { readonly tty: Fd; readonly agent: Fd; readonly net: Peer } | undefined;

  connect(): void {
    const agent = this.#stack.use(connectUnix(path("agent.sock"))).fd;
    const net = connectUnix(path("net.sock"));
    for (const fd of [agent, net.fd]) setNonBlocking(fd);
    const tty = this.#stack.use(openFile(path("tty"), O.RDWR | O.NONBLOCK));
    this.#ends = { tty, agent, net: this.#stack.use(new Peer(net)) };
  }

  /** What the socket's client has not read outlives the device's process; then everything is closed. */
  disconnect(): void {
    while (this.agent.read(this.#ends!.agent) > 0);
    this[Symbol.dispose]();
  }

  /** Reads and writes until it is so. */
  async until(done: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    while (!(await done())) {
      if (performance.now() > deadline) throw new Error(`not in ${TIMEOUT_MS} ms: ${done}`);
      const { tty, agent, net } = this.#ends!;
      this.tty.turn(tty, this.mayWrite);
      this.agent.turn(agent, this.mayWrite);
      // Frames go back to where they came from.
      for (let frame = net.read(); frame !== undefined; frame = net.read()) {
        this.frames++;
        net.write(wire(frame));
      }
      await Bun.sleep(POLL_MS);
    }
  }

  get received(): number {
    return Math.min(this.tty.received.received, this.agent.received.received);
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
    this.#stack = new DisposableStack();
    this.#ends = undefined;
  }
}

async function vhu(...words: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await runVhu(words);
  if (status !== 0) throw new Error(`vhu ${words.join(" ")} ended with ${status}: ${stderr}`);
  return stdout;
}

const machine = (verb: string, ...words: string[]) =>
  vhu("machine", verb, `machine:${path("m.sock")}`, ...words);

async function status(): Promise<MachineStatus> {
  using driver = new MachineDriver(path("m.sock"));
  return await driver.status();
}

function figures(of: MachineStatus) {
  const [lines = {}, random = {}, frames = {}] = of.workloads.map(({ counters }) => counters);
  return { lines, random, frames };
}

test(
  "console, rng and net of a machine under load: saved, killed, loaded, and no byte is lost or repeated",
  async () => {
    using host = new Host();
    await using first = startVhu(["machine", "run", path("m.toml")]);
    await first.waitForStderr(/ready, machine/, TIMEOUT_MS);
    host.connect();
    const done = async (from: { received: number; frames: number; answers: number }) => {
      if (host.received < from.received + LINES || host.frames < from.frames + FRAMES) return false;
      const { lines, random } = figures(await status());
      return lines.received! >= 2 * LINES && random.answers! >= from.answers + ANSWERS;
    };
    await host.until(() => done({ received: 0, frames: 0, answers: 0 }));
    expect(figures(await status()).lines.open).toBe(3);
    await machine("suspend");
    // The host goes on for a while: what it says now waits in the kernel, and is part of the state.
    const sent = host.tty.sent;
    await host.until(() => host.tty.sent > sent + 5 * LINES_AT_ONCE);
    await vhu("migrate", "save", `machine:${path("m.sock")}`, path("m.vhu"));
    const before = await status();
    const pids = [first.process.pid, ...before.devices.map(({ pid }) => pid)];
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await first.process.exited;
    host.disconnect();
    await vhu("snapshot", "verify", "--deep", path("m.vhu"));

    await vhu("migrate", "load", path("m.vhu"));
    const after = await status();
    try {
      expect(after.devices.map(({ pid }) => pid)).not.toEqual(before.devices.map(({ pid }) => pid));
      host.connect();
      const { received, frames } = host;
      await host.until(() => done({ received, frames, answers: figures(before).random.answers! }));
      host.mayWrite = false;
      // All that the host has sent, before and after, arrives.
      await host.until(
        async () => figures(await status()).lines.received! >= host.tty.sent + host.agent.sent - 2,
      );
      expect(await machine("verify")).toContain("0 lost, 0 torn, 0 repeated");
      for (const port of [host.tty, host.agent]) {
        expect(port.received.state).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
      }
      const log = new NumberedLines();
      log.push(readFileSync(path("guest.log")));
      expect(log.state).toMatchObject({ lost: 0, torn: 0, repeated: 0 });
      expect(log.received).toBeGreaterThan(2 * LINES);
      expect(readlinkSync(path("tty"))).toMatch(/^\/dev\/pts\/\d+$/);
    } finally {
      await machine("stop");
    }
  },
  4 * TIMEOUT_MS,
);
