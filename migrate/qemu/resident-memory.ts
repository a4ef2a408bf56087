import { readFileSync } from "node:fs";

/** What of a QEMU's memory is in use, its guest's first of all; undefined where its process is not to be seen. */
export function residentMemory(pid: number): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const kilobytes = [...status.matchAll(/^Rss(?:Anon|Shmem):\s*(\d+) kB$/gm)].map(([, text]) =>
      Number(text),
    );
    return kilobytes.reduce((sum, each) => sum + each, 0) * 1024;
  } catch {
    return undefined;
  }
}
