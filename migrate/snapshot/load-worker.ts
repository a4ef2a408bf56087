/** A load Worker (load-pool.ts): fills memory until nothing is left, and then says so, or what went wrong. */
import { parentPort, workerData } from "node:worker_threads";
import { FormatError } from "../../src/errors.ts";
import { FileInput, type SharedInput } from "./file-input.ts";
import { loadEntries } from "./load-entries.ts";
import { LoadTable } from "./load-table.ts";

export interface LoadSetup {
  readonly memory: SharedArrayBuffer;
  readonly files: readonly SharedInput[];
  readonly targetFd: number;
}

export interface LoadReport {
  readonly fault?: { readonly message: string; readonly section?: string; readonly offset?: number };
}

parentPort?.postMessage(work(workerData as LoadSetup));

function work({ memory, files, targetFd }: LoadSetup): LoadReport {
  try {
    const inputs = files.map((file) => FileInput.borrow(file));
    for (const _ of loadEntries(new LoadTable(memory), inputs, targetFd));
    return {};
  } catch (error) {
    const { message } = error as Error;
    if (!(error instanceof FormatError)) return { fault: { message } };
    return { fault: { message, section: error.section, offset: error.offset } };
  }
}
