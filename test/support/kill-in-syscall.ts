import { readdirSync, readFileSync } from "node:fs";
import { waitForState } from "./process-state.ts";

/** System calls of the block data path, by number: preadv, pwritev, fdatasync, io_uring_enter. */
const DATA_CALLS = process.arch === "arm64" ? [69, 70, 83, 426] : [295, 296, 75, 426];

/**
 * Kills a process with SIGKILL at a moment when one of its threads is inside a read, a write or a flush, or the kernel does
 * one for its io_uring, so that what it was asked to do is begun and not answered. It is stopped and let go again until
 * that is so.
 */
export async function killInDataCall(pid: number, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    process.kill(pid, "SIGSTOP");
    await waitForState(pid, "T", timeoutMs);
    if (readdirSync(`/proc/${pid}/task`).some((thread) => isBusy(`/proc/${pid}/task/${thread}`))) {
      process.kill(pid, "SIGKILL");
      return;
    }
    process.kill(pid, "SIGCONT");
    if (performance.now() > deadline)
      throw new Error(`process ${pid} was in no data call for ${timeoutMs} ms`);
    await Bun.sleep(Math.random() * 3);
  }
}

function isBusy(thread: string): boolean {
  try {
    const stat = readFileSync(`${thread}/stat`, "utf8");
    // A kernel thread of an io_uring that waits for the disk.
    if (stat.includes("(iou-wrk-")) return stat.slice(stat.lastIndexOf(")") + 2).startsWith("D");
    return DATA_CALLS.includes(Number(readFileSync(`${thread}/syscall`, "utf8").split(" ")[0]));
  } catch {
    // It has ended meanwhile, as idle threads of an io_uring do.
    return false;
  }
}
