import { readdirSync, readFileSync } from "node:fs";
import { BOOT_TIMEOUT_MS } from "./living-guest.ts";

/** SIGKILL for a process that a load has started, and that outlives it. */
export function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

export function isAlive(pid: number): boolean {
  return readdirSync("/proc").includes(`${pid}`);
}

export async function waitUntil(isThere: () => boolean, timeoutMs = BOOT_TIMEOUT_MS): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!isThere()) {
    if (performance.now() > deadline) throw new Error("it did not happen");
    await Bun.sleep(10);
  }
}

/** The command lines of processes that have a path of a test's own in it. */
export function processesOf(folder: string): string[] {
  return found(folder).map(({ words }) => words.replaceAll("\0", " "));
}

/** What a test has started and not ended, wherever it stopped. */
export function endProcessesOf(folder: string): void {
  for (const { pid } of found(folder)) if (pid !== process.pid) killQuietly(pid);
}

function found(folder: string): { readonly pid: number; readonly words: string }[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      return words.includes(folder) ? [{ pid: Number(pid), words }] : [];
    } catch {
      // It has ended meanwhile.
      return [];
    }
  });
}
