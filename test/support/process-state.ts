import { readFileSync } from "node:fs";

/** Waits until a process is in a state as /proc/PID/stat has it: "T" stopped, "Z" ended and not yet waited for, … */
export async function waitForState(pid: number, state: string, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (stateOf(pid) !== state) {
    if (performance.now() > deadline) throw new Error(`process ${pid} is ${stateOf(pid)}, not ${state}`);
    await Bun.sleep(1);
  }
}

function stateOf(pid: number): string {
  const line = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The name before it is in brackets and may contain anything.
  return line.slice(line.lastIndexOf(")") + 2, line.lastIndexOf(")") + 3);
}
