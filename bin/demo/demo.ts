import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  ControlClient,
  type MachineStatus,
  type VerifyReport,
  verifyReport,
} from "../../migrate/machine/mod.ts";
import {
  loadMachine,
  type MachineDriver,
  MachineProcess,
  OwnSnapshots,
  requireMayStart,
  saveMachine,
} from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { StateError } from "../../src/errors.ts";
import { Deadline } from "../../src/sys/mod.ts";
import { vhuCommand } from "../vhu-command.ts";
import { type Evidence, gatherEvidence } from "./evidence.ts";

export interface DemoOptions {
  readonly folder: string;
  readonly version: string;
  readonly signal: AbortSignal;
  /** Writes to wait for before the save and again after the load. */
  readonly writes: number;
  /** Tells what is done, as it is done. */
  readonly say: (message: string, fields?: Readonly<Record<string, unknown>>) => void;
}

export interface DemoResult {
  readonly snapshotPath: string;
  readonly snapshotBytes: number;
  readonly saveMs: number;
  readonly loadMs: number;
  readonly writesBefore: number;
  readonly writesAfter: number;
  readonly killed: readonly number[];
  readonly verify: VerifyReport;
  readonly evidence: Evidence;
}

const BLOCKS = 2048;
const PROGRESS_TIMEOUT_MS = 60_000;

const MACHINE_FILE = `name = "demo"
socket = "demo.sock"

[memory]
size-mib = 64

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
in-flight = 16
`;

/** The main job on an embedded machine, every step for real: run, save, kill, load, go on, verify. */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const path = (name: string) => join(options.folder, name);
  writeFileSync(path("demo.toml"), MACHINE_FILE);
  writeFileSync(path("disk.img"), "");
  truncateSync(path("disk.img"), BLOCKS * 4096);
  const own = new OwnSnapshots(path("state"));
  const first = await runSaveKill(options, path, own);
  const second = await loadAndGoOn(options, path, own);
  const evidence = gatherEvidence(path("disk.img"), path("console.log"), BLOCKS);
  return { snapshotPath: path("demo.vhu"), ...first, ...second, evidence };
}

type PathOf = (name: string) => string;

/** Ends with the machine saved and dead. */
async function runSaveKill({ say, signal, writes, version }: DemoOptions, path: PathOf, own: OwnSnapshots) {
  using machine = MachineProcess.start(vhuCommand, [path("demo.toml")], path("demo.sock"), path("first.log"));
  using driver = await machine.connect(signal);
  say("a machine runs, with a disk and a console, each served by a process of its own", { pid: machine.pid });
  const status = await waitForWrites(driver, writes, signal);
  const startMs = performance.now();
  const saved = await saveMachine(driver, path("demo.vhu"), {
    writer: { name: "vhu", version },
    labels: { purpose: "demo" },
    // The disk is not in the snapshot: the machine must not write to it between the save and its end.
    after: "stay",
    own,
    signal,
  });
  const saveMs = performance.now() - startMs;
  say(`saved it under load, after ${sequenceOf(status)} writes`, { sizeBytes: saved.sizeBytes, saveMs });
  const killed = [machine.pid, ...status.devices.map(({ pid }) => pid)];
  for (const pid of killed) process.kill(pid, "SIGKILL");
  await waitForEnd(killed, signal);
  say(`ended it and its back-ends by SIGKILL: processes ${killed.join(", ")}`, { killed });
  return { snapshotBytes: saved.sizeBytes, saveMs, killed };
}

/** Ends with the loaded machine stopped, after it went on and was verified. */
async function loadAndGoOn({ say, signal, writes }: DemoOptions, path: PathOf, own: OwnSnapshots) {
  const startMs = performance.now();
  using reader = SnapshotReader.open(path("demo.vhu"));
  requireMayStart(reader.root, { own, trust: false });
  const socket = path("demo.sock");
  using machine = MachineProcess.start(
    vhuCommand,
    ["--incoming", "--socket", socket],
    socket,
    path("second.log"),
  );
  using driver = await machine.connect(signal);
  await loadMachine(driver, reader, { signal });
  const loadMs = performance.now() - startMs;
  say("loaded it in new processes", { pid: machine.pid, loadMs });
  const writesBefore = sequenceOf(await driver.status());
  const after = await waitForWrites(driver, writesBefore + writes, signal);
  const verify = await verifyMachine(socket, signal);
  say(`it went on to ${sequenceOf(after)} writes; checked what it wrote`, { ...verify });
  await driver.discard();
  await waitForEnd([machine.pid, ...after.devices.map(({ pid }) => pid)], signal);
  return { loadMs, writesBefore, writesAfter: sequenceOf(after) - writesBefore, verify };
}

/** True when nothing was lost, torn or repeated. */
export function isRight({ verify, evidence, writesAfter }: DemoResult): boolean {
  const { acknowledged, repeatedLines, missingLines, tornBlocks, lostBlocks } = evidence;
  const wrong = verify.failures.length + repeatedLines + missingLines + tornBlocks + lostBlocks;
  return wrong === 0 && acknowledged > 0 && writesAfter > 0 && verify.checked > 0;
}

async function waitForWrites(
  driver: MachineDriver,
  atLeast: number,
  signal: AbortSignal,
): Promise<MachineStatus> {
  const deadline = new Deadline(PROGRESS_TIMEOUT_MS);
  for (;;) {
    signal.throwIfAborted();
    const status = await driver.status();
    if (sequenceOf(status) >= atLeast) return status;
    if (deadline.expired)
      throw new StateError(
        `the machine made ${sequenceOf(status)} writes in a minute, ${atLeast} were expected`,
      );
    await Bun.sleep(20);
  }
}

function sequenceOf(status: MachineStatus): number {
  return status.workloads[0]?.counters.sequence ?? 0;
}

async function verifyMachine(socketPath: string, signal: AbortSignal): Promise<VerifyReport> {
  using client = ControlClient.connect(socketPath);
  const { result } = await client.request({ command: "verify" }, { signal });
  return verifyReport.parse(result);
}

/** Waits until processes are gone, or only zombies of someone who has not noticed yet. */
async function waitForEnd(pids: readonly number[], signal: AbortSignal): Promise<void> {
  const deadline = new Deadline(PROGRESS_TIMEOUT_MS);
  while (pids.some(isRunning)) {
    signal.throwIfAborted();
    if (deadline.expired) throw new StateError(`processes ${pids.filter(isRunning).join(", ")} did not end`);
    await Bun.sleep(5);
  }
}

function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) !== "Z";
  } catch {
    return false;
  }
}
