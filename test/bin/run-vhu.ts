import { join } from "node:path";
import { ROOT } from "../support/source-files.ts";

export interface Ran {
  /** The exit status; 128 + signal where a signal ended it. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
}

export const PROGRAM: readonly string[] = [process.execPath, join(ROOT, "bin", "vhu.ts")];
const SIGNAL_BASE = 128;

/** Runs `vhu WORDS…` in a process of its own, to its end. */
export async function runVhu(words: readonly string[], options: RunOptions = {}): Promise<Ran> {
  const child = Bun.spawn([...PROGRAM, ...words], {
    cwd: ROOT,
    stdin: options.stdin ?? "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, NO_COLOR: "1", ...options.env },
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  const exited = await child.exited;
  const status = child.signalCode === null ? exited : Math.max(exited, SIGNAL_BASE + 1);
  return { status, stdout, stderr };
}
