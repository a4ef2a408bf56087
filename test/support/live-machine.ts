import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import {
  ControlClient,
  type MachineStatus,
  type VerifyReport,
  verifyReport,
} from "../../migrate/machine/mod.ts";
import { MachineDriver } from "../../migrate/mod.ts";
import type { LiveHost, LiveHosts } from "./live-hosts.ts";
import type { VhuProcess } from "./vhu-process.ts";

const BLOCKS = 1024;
/** The workload's rings and buffers are below. */
const FREE_BYTES = 16 << 20;
const READY_MS = 30_000;

export interface LiveMachineOptions {
  readonly name?: string;
  readonly memoryMib?: number;
  /** Milliseconds between batches of writes. */
  readonly pauseMs?: number;
  /** Its disks are on host a alone: the one that the workload writes to, and a sparse one of this size with some data. */
  readonly ownDiskMib?: number;
}

/** A native machine under load, whose files both hosts have. */
export class LiveMachine implements AsyncDisposable {
  readonly name: string;
  host: LiveHost;
  #first: VhuProcess | undefined;

  private constructor(
    readonly hosts: LiveHosts,
    { name = "m", memoryMib = 64, pauseMs = 1, ownDiskMib }: LiveMachineOptions,
  ) {
    this.name = name;
    this.host = hosts.a;
    const file = (end: string) => join(hosts.folder, `${name}.${end}`);
    const isOwn = ownDiskMib !== undefined;
    const image = isOwn ? join(hosts.folder, "run", `${name}.img`) : file("img");
    const realImage = isOwn ? hosts.a.path(`${name}.img`) : image;
    writeFileSync(realImage, "");
    truncateSync(realImage, BLOCKS * 4096);
    const more = isOwn
      ? `[[device]]
name = "disk1"
type = "blk"
image = "${join(hosts.folder, "run", `${name}-data.img`)}"
`
      : "";
    if (isOwn) writeSparse(hosts.a.path(`${name}-data.img`), ownDiskMib);
    writeFileSync(
      file("toml"),
      `name = "${name}"
socket = "${join(hosts.folder, "run", `${name}.sock`)}"
[memory]
size-mib = ${memoryMib}
[[device]]
name = "disk0"
type = "blk"
image = "${image}"
${more}[[device]]
name = "console0"
type = "console"
file = "${file("console")}"
[[workload]]
kind = "blocks"
disk = "disk0"
log = "console0"
blocks = ${BLOCKS}
in-flight = 16
pause-ms = ${pauseMs}
`,
    );
  }

  static async start(hosts: LiveHosts, options: LiveMachineOptions = {}): Promise<LiveMachine> {
    const machine = new LiveMachine(hosts, options);
    machine.#first = hosts.a.vhu("machine", "run", join(hosts.folder, `${machine.name}.toml`));
    await machine.reaches(50);
    return machine;
  }

  /** Its address, as its host knows it. */
  get address(): string {
    return `machine:${join(this.hosts.folder, "run", `${this.name}.sock`)}`;
  }

  /** What is at its socket on a host; undefined where nobody is. */
  async statusOn(host: LiveHost): Promise<MachineStatus | undefined> {
    const path = host.path(`${this.name}.sock`);
    if (!existsSync(path)) return undefined;
    try {
      using driver = new MachineDriver(path);
      return await driver.status();
    } catch {
      return undefined;
    }
  }

  /** Hosts on which it runs: it must never be two. */
  async runners(): Promise<LiveHost[]> {
    const found: LiveHost[] = [];
    for (const host of [this.hosts.a, this.hosts.b]) {
      if ((await this.statusOn(host))?.runState === "running") found.push(host);
    }
    return found;
  }

  async sequence(): Promise<number> {
    return (await this.statusOn(this.host))?.workloads[0]?.counters.sequence ?? -1;
  }

  /** Waits until its workload has come so far. */
  async reaches(sequence: number): Promise<void> {
    const deadline = performance.now() + READY_MS;
    while ((await this.sequence()) < sequence) {
      if (performance.now() > deadline) {
        throw new Error(
          `${this.name} does not get to ${sequence} on host ${this.host.name}: ${this.#first?.stderr()}`,
        );
      }
      await Bun.sleep(10);
    }
  }

  /** Everything that it wrote, through its devices. */
  async verify(): Promise<VerifyReport> {
    using client = ControlClient.connect(this.host.path(`${this.name}.sock`));
    return verifyReport.parse((await client.request({ command: "verify" }, { timeoutMs: READY_MS })).result);
  }

  /** Writes bytes that do not compress into memory that the workload leaves alone. Returns what tells them. */
  async fill(mib: number): Promise<string> {
    const fd = openSync(await this.#memoryPath(), "r+");
    const piece = new Uint8Array(1 << 20);
    for (let index = 0; index < mib; index++) {
      for (let at = 0; at < piece.length; at += 65536) crypto.getRandomValues(piece.subarray(at, at + 65536));
      writeSync(fd, piece, 0, piece.length, FREE_BYTES + index * piece.length);
    }
    closeSync(fd);
    return this.contentOf(mib);
  }

  /** What tells the bytes that `fill` has written. */
  async contentOf(mib: number): Promise<string> {
    const fd = openSync(await this.#memoryPath(), "r");
    const bytes = new Uint8Array(mib << 20);
    readSync(fd, bytes, 0, bytes.length, FREE_BYTES);
    closeSync(fd);
    return Bun.CryptoHasher.hash("sha256", bytes, "hex");
  }

  /** The memfd, by way of its process. */
  async #memoryPath(): Promise<string> {
    const [pid] = await this.pidsOn(this.host);
    const folder = `/proc/${pid}/fd`;
    const found = readdirSync(folder).find((name) =>
      /^\/memfd:(?:machine|guest) memory/.test(linkOf(join(folder, name))),
    );
    if (found === undefined) throw new Error(`process ${pid} has no memory`);
    return join(folder, found);
  }

  /** Of its process on a host, and of its back-ends. */
  async pidsOn(host: LiveHost): Promise<number[]> {
    const status = await this.statusOn(host);
    return status === undefined
      ? []
      : [status.pid, ...status.devices.filter(({ spawned }) => spawned).map(({ pid }) => pid)];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const host of [this.hosts.a, this.hosts.b]) {
      for (const pid of await this.pidsOn(host)) if (isAlive(pid)) process.kill(pid, "SIGKILL");
    }
    await this.#first?.[Symbol.asyncDispose]();
  }
}

/** A MiB of data in every eighth, at odd places. */
function writeSparse(path: string, mib: number): void {
  writeFileSync(path, "");
  truncateSync(path, mib << 20);
  const fd = openSync(path, "r+");
  const piece = new Uint8Array(1 << 20);
  for (let at = 0; at + 8 <= mib; at += 8) {
    for (let from = 0; from < piece.length; from += 65_536) {
      crypto.getRandomValues(piece.subarray(from, from + 65_536));
    }
    writeSync(fd, piece, 0, piece.length, (at << 20) + 4096 * 37);
  }
  closeSync(fd);
}

/** Neither gone nor a zombie. */
function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}
