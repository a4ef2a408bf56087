import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Pids of QEMUs that have a word in their command line. */
export function qemusWith(word: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => {
      try {
        const words = readFileSync(join("/proc", pid, "cmdline"), "utf8");
        return words.includes("qemu-system") && words.includes(word);
      } catch {
        // It ended meanwhile.
        return false;
      }
    })
    .map(Number);
}
