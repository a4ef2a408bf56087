import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { FormatError, StateError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_WORKERS } from "../../src/limits.ts";
import { eventLoopTurn } from "../../src/sys/mod.ts";
import type { FileInput } from "./file-input.ts";
import { loadEntries } from "./load-entries.ts";
import { LoadCounter, type LoadEntry, LoadTable } from "./load-table.ts";
import type { LoadReport, LoadSetup } from "./load-worker.ts";
import { MEMORY_PAGE_BYTES } from "./manifest.ts";

/** From here on Workers are worth their start (20 ms). */
const LEAST_POOL_BYTES = 32 * 1024 * 1024;
const PROGRESS_INTERVAL_MS = 50;

export interface LoadProgress {
  readonly signal?: AbortSignal | undefined;
  /** Where in the target the region starts; 0 unless told. */
  readonly targetOffset?: number | undefined;
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

/**
 * Writes frames of `inputs` to `targetFd`, on all processors (at most 4). Sorted by frame, so that one which many extents
 * share is unpacked once, however they are spread over the memory.
 *
 * @throws FormatError, and what `signal` was aborted with
 */
export async function loadFrames(
  entries: readonly LoadEntry[],
  inputs: readonly FileInput[],
  targetFd: number,
  options: LoadProgress,
): Promise<void> {
  const table = LoadTable.of([...entries].sort(byFrame));
  const report = () => {
    options.onProgress?.(Atomics.load(table.counters, LoadCounter.pagesDone) * MEMORY_PAGE_BYTES);
  };
  const workerCount = Math.min(availableParallelism(), MAX_SNAPSHOT_WORKERS);
  const totalBytes = entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  if (workerCount > 1 && totalBytes >= LEAST_POOL_BYTES) {
    await loadInWorkers(
      workerCount,
      { memory: table.memory, files: inputs.map((input) => input.share()), targetFd },
      report,
      options.signal,
    );
    return;
  }
  for (const _ of loadEntries(table, inputs, targetFd)) {
    report();
    await eventLoopTurn();
    options.signal?.throwIfAborted();
  }
}

async function loadInWorkers(
  workerCount: number,
  setup: LoadSetup,
  report: () => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { counters } = new LoadTable(setup.memory);
  const stop = () => Atomics.store(counters, LoadCounter.stopped, 1);
  const timer = setInterval(report, PROGRESS_INTERVAL_MS);
  signal?.addEventListener("abort", stop);
  try {
    // Every Worker is waited for, whatever happens: none may write to an fd that is another's by then.
    const reports = await Promise.all(Array.from({ length: workerCount }, () => run(setup, stop)));
    signal?.throwIfAborted();
    const fault = reports.find((report) => report.fault !== undefined)?.fault;
    if (fault !== undefined) throw faultOf(fault);
  } finally {
    clearInterval(timer);
    signal?.removeEventListener("abort", stop);
  }
}

function run(setup: LoadSetup, stop: () => void): Promise<LoadReport> {
  const { promise, resolve } = Promise.withResolvers<LoadReport>();
  const worker = new Worker(new URL("./load-worker.ts", import.meta.url), { workerData: setup });
  worker.on("message", resolve);
  worker.on("error", ({ message }) => {
    stop();
    resolve({ fault: { message } });
  });
  worker.on("exit", () => resolve({ fault: { message: "a load Worker ended without a word" } }));
  return promise;
}

function faultOf({ message, section, offset }: NonNullable<LoadReport["fault"]>): Error {
  if (section === undefined) return new StateError(`the memory could not be loaded: ${message}`);
  // The message names the place already.
  const error = new FormatError("", section, offset);
  error.message = message;
  return error;
}

function byFrame(a: LoadEntry, b: LoadEntry): number {
  return a.fileNumber - b.fileNumber || a.frame.offset - b.frame.offset || a.offset - b.offset;
}
