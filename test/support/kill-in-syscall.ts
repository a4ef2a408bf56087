import { readFileSync } from "node:fs";
import { waitForState } from "./process-state.ts";

/** System calls of the block data path, by number: preadv, pwritev, fdatasync. */
const DATA_CALLS = process.arch === "arm64" ? [69, 70, 83] : [295, 296, 75];

/**
 * Kills a process with SIGKILL at a moment when its main thread is inside a read, a write or a flush, so that what it
 * was asked to do is begun and not answered. It is stopped and let go again until that is so.
 */
export async function killInDataCall(pid: number, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    process.kill(pid, "SIGSTOP");
    await waitForState(pid, "T", timeoutMs);
    const call = Number(readFileSync(`/proc/${pid}/syscall`, "utf8").split(" ")[0]);
    if (DATA_CALLS.includes(call)) {
      process.kill(pid, "SIGKILL");
      return;
    }
    process.kill(pid, "SIGCONT");
    if (performance.now() > deadline)
      throw new Error(`process ${pid} was in no data call for ${timeoutMs} ms`);
    await Bun.sleep(Math.random() * 3);
  }
}
