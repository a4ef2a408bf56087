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
  const { folder, say, signal } = options;
  const path = (name: string) => join(folder, name);
  writeFileSync(path("demo.toml"), MACHINE_FILE);
  writeFileSync(path("disk.img"), "");
  truncateSync(path("disk.img"), BLOCKS * 4096);
  const snapshotPath = path("demo.vhu");

  using first = MachineProcess.start(vhuCommand, [path("demo.toml")], path("demo.sock"), path("first.log"));
  const started = await first.connect(signal);
  say("a machine runs, with a disk and a console, each served by a process of its own", { pid: first.pid });
  const before = await waitForWrites(started, options.writes, signal);
  const own = new OwnSnapshots(path("state"));
  const saveStart = performance.now();
  const saved = await saveMachine(started, snapshotPath, {
    writer: { name: "vhu", version: options.version },
    labels: { purpose: "demo" },
    // The disk is not in the snapshot: the machine must not write to it between the save and its end.
    after: "stay",
    own,
    signal,
  });
  const saveMs = performance.now() - saveStart;
  say(`saved it under load, after ${sequenceOf(before)} writes`, {
    sizeBytes: saved.sizeBytes,
    milliseconds: saveMs,
  });

  const killed = [first.pid, ...before.devices.map(({ pid }) => pid)];
  for (const pid of killed) process.kill(pid, "SIGKILL");
  started[Symbol.dispose]();
  await waitForEnd(killed, signal);
  say(`ended it and its back-ends by SIGKILL: processes ${killed.join(", ")}`, { killed });

  const loadStart = performance.now();
  using reader = SnapshotReader.open(snapshotPath);
  requireMayStart(reader.root, { own, trust: false });
  using second = MachineProcess.start(
    vhuCommand,
    ["--incoming", "--socket", path("demo.sock")],
    path("demo.sock"),
    path("second.log"),
  );
  using loaded = await second.connect(signal);
  await loadMachine(loaded, reader, { signal });
  const loadMs = performance.now() - loadStart;
  say("loaded it in new processes", { pid: second.pid, milliseconds: loadMs });
  const savedSequence = sequenceOf(await loaded.status());
  const after = await waitForWrites(loaded, savedSequence + options.writes, signal);
  const verify = await verifyMachine(path("demo.sock"), signal);
  say(`it went on to ${sequenceOf(after)} writes; checked what it wrote`, { ...verify });
  await loaded.discard();
  await waitForEnd([second.pid, ...after.devices.map(({ pid }) => pid)], signal);
  const evidence = gatherEvidence(path("disk.img"), path("console.log"), BLOCKS);
  return {
    snapshotPath,
    snapshotBytes: saved.sizeBytes,
    saveMs,
    loadMs,
    writesBefore: savedSequence,
    writesAfter: sequenceOf(after) - savedSequence,
    killed,
    verify,
    evidence,
  };
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
