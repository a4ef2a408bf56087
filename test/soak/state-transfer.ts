/**
 * A large device state from one process to another and back, and the memory that it takes in each.
 * As a program it is the front-end's process: `bun state-transfer.ts SOCKET PID BYTES`.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { VhostUserFrontend } from "../../src/frontend/mod.ts";
import { encodeState } from "../../src/state/mod.ts";
import { connectUnix, EventLoop } from "../../src/sys/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";
import { SpawnedBackend } from "../support/spawn-backend.ts";
import { stateBulk } from "../support/state-bulk.ts";

export interface TransferFigures {
  readonly sizeBytes: number;
  readonly saveMiBPerSecond: number;
  readonly loadMiBPerSecond: number;
  /** Peak resident memory above what the process had after the negotiation. */
  readonly frontendExtraMiB: number;
  readonly backendExtraMiB: number;
}

const MiB = 2 ** 20;

/** Saves and loads a state of `sizeBytes` and a little more. */
export async function measureStateTransfer(sizeBytes: number): Promise<TransferFigures> {
  using backend = await SpawnedBackend.start({ bulkBytes: sizeBytes });
  const child = Bun.spawn(
    [process.execPath, import.meta.path, backend.path, `${backend.process.pid}`, `${sizeBytes}`],
    {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    },
  );
  const figures = JSON.parse(await new Response(child.stdout).text()) as TransferFigures;
  const { received } = await backend.report();
  if (received !== sizeBytes) throw new Error(`the back-end took ${received} of ${sizeBytes} bytes`);
  return figures;
}

/** Resident memory now and at most since the last reset, in MiB (proc(5): VmRSS, VmHWM). */
function memoryOf(pid: number | "self"): { now: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)![1]) / 1024;
  return { now: field("VmRSS"), peak: field("VmHWM") };
}

/** Makes the peak begin anew (proc(5), clear_refs 5). */
function resetPeak(pid: number | "self"): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

async function runFrontend(path: string, backendPid: number, sizeBytes: number): Promise<TransferFigures> {
  using loop = new EventLoop();
  using frontend = new VhostUserFrontend(connectUnix(path), loop, {
    type: { name: "test", id: 63, minQueues: 1 },
    baseFeatures: virtioFeature.VERSION_1,
  });
  resetPeak("self");
  resetPeak(backendPid);
  const [ours, theirs] = [memoryOf("self").now, memoryOf(backendPid).now];
  let saved = 0;
  const savedMs = await timed(() =>
    frontend.saveState((bytes) => {
      saved += bytes.length;
    }),
  );
  const header = {
    deviceType: "test",
    version: 1,
    oldestCompatibleVersion: 1,
    features: virtioFeature.VERSION_1,
  };
  const state = encodeState(header, [
    { name: "counter", value: { counter: 1 } },
    { name: "bulk", bytes: stateBulk(sizeBytes) },
  ]);
  const loadedMs = await timed(() => frontend.loadState(state));
  if (saved < sizeBytes) throw new Error(`${saved} of ${sizeBytes} bytes came`);
  return {
    sizeBytes,
    saveMiBPerSecond: Math.round(sizeBytes / MiB / (savedMs / 1000)),
    loadMiBPerSecond: Math.round(sizeBytes / MiB / (loadedMs / 1000)),
    frontendExtraMiB: Math.round(memoryOf("self").peak - ours),
    backendExtraMiB: Math.round(memoryOf(backendPid).peak - theirs),
  };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

if (import.meta.main) {
  const [path = "", pid = "", sizeBytes = ""] = process.argv.slice(2);
  console.log(JSON.stringify(await runFrontend(path, Number(pid), Number(sizeBytes))));
}
