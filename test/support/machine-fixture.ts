import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  ControlClient,
  type MachineStatus,
  type VerifyReport,
  verifyReport,
} from "../../migrate/machine/mod.ts";
import { loadMachine, type MachineDriver, MachineProcess, saveMachine } from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";

const ROOT = resolve(import.meta.dir, "../..");
export const vhu: readonly string[] = [process.execPath, join(ROOT, "bin/vhu.ts")];

export const BLOCKS = 256;
/** Who writes the snapshots. */
export const WRITER = { name: "test", version: "0" };

/** A folder with a machine of a disk and a console, whose processes all end with it. */
export class MachineFixture implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "vhu-machine-"));
  readonly #processes: MachineProcess[] = [];

  constructor(readonly extra = "") {
    writeFileSync(
      this.path("m.toml"),
      `name = "m"
socket = "m.sock"
[memory]
size-mib = 8
[[device]]
name = "disk0"
type = "blk"
image = "disk.img"
[[device]]
name = "console0"
type = "console"
file = "console.log"
[[workload]]
kind = "blocks"
disk = "disk0"
log = "console0"
blocks = ${BLOCKS}
${extra}`,
    );
    writeFileSync(this.path("disk.img"), "");
    truncateSync(this.path("disk.img"), BLOCKS * 4096);
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  get socket(): string {
    return this.path("m.sock");
  }

  async start(
    args: readonly string[] = [this.path("m.toml")],
  ): Promise<{ process: MachineProcess; driver: MachineDriver }> {
    const process = MachineProcess.start(vhu, args, this.socket, this.path(`log.${this.#processes.length}`));
    this.#processes.push(process);
    return { process, driver: await process.connect() };
  }

  /** A machine that was started, saved as `m.vhu` once it had come to the sequence, and killed. What it said before. */
  async startSaveKill(sequence: number): Promise<MachineStatus> {
    const { process, driver } = await this.start();
    using _driver = driver;
    const status = await waitForSequence(driver, sequence);
    await saveMachine(driver, this.path("m.vhu"), { writer: WRITER, after: "stay" });
    await this.kill(process, status);
    return status;
  }

  /** A new machine that goes on from a snapshot. */
  async load(snapshot: string): Promise<{ process: MachineProcess; driver: MachineDriver }> {
    const started = await this.start(["--incoming", "--socket", this.socket]);
    try {
      using reader = SnapshotReader.open(this.path(snapshot));
      await loadMachine(started.driver, reader);
      return started;
    } catch (error) {
      started.driver[Symbol.dispose]();
      throw error;
    }
  }

  async verify(): Promise<VerifyReport> {
    using client = ControlClient.connect(this.socket);
    return verifyReport.parse((await client.request({ command: "verify" })).result);
  }

  /** Waits until a machine that was told to end has taken its control socket away. */
  async waitForNoSocket(): Promise<void> {
    for (let i = 0; i < 1000 && existsSync(this.socket); i++) await Bun.sleep(5);
    if (existsSync(this.socket)) throw new Error(`${this.socket} is still there`);
  }

  /** SIGKILL for the machine and every back-end that it started. */
  async kill(process: MachineProcess, status: MachineStatus): Promise<void> {
    const pids = [process.pid, ...status.devices.filter(({ spawned }) => spawned).map(({ pid }) => pid)];
    for (const pid of pids) kill(pid);
    for (let i = 0; i < 4000 && pids.some(isAlive); i++) await Bun.sleep(5);
  }

  [Symbol.dispose](): void {
    for (const process of this.#processes) process[Symbol.dispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Neither gone nor a zombie. */
function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

export async function waitForSequence(driver: MachineDriver, atLeast: number): Promise<MachineStatus> {
  for (let i = 0; i < 1500; i++) {
    const status = await driver.status();
    if ((status.workloads[0]?.counters.sequence ?? 0) >= atLeast) return status;
    await Bun.sleep(10);
  }
  throw new Error(`the workload did not reach ${atLeast}`);
}

export function sequenceOf(status: MachineStatus): number {
  return status.workloads[0]?.counters.sequence ?? 0;
}
