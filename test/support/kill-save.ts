import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotWriter, verifySnapshot } from "../../migrate/snapshot/mod.ts";
import { randomNumbers } from "../fuzz/mutate.ts";

/** Whole saves before the one that is killed, at most. */
const MOST_SAVES = 3;
/** What a save takes, until one was seen. */
const FIRST_GUESS_MS = 30;

export interface KillReport {
  readonly whole: number;
  /** Killed before the first save was done. */
  readonly none: number;
  /** Names beside the file right after a kill; each was gone after the next save. */
  readonly leftovers: number;
}

/** SIGKILL at `count` random moments of saves to one name: there must be a whole file or, at first, none. */
export async function killSaves(seed: number, count: number): Promise<KillReport> {
  const random = randomNumbers(seed);
  const folder = mkdtempSync(join(tmpdir(), "vhu-kill-"));
  const path = join(folder, "a.vhu");
  let saveMs = FIRST_GUESS_MS;
  const report = { whole: 0, none: 0, leftovers: 0 };
  try {
    for (let index = 0; index < count; index += 1) {
      const hadFile = existsSync(path);
      // Anywhere in a save, and sometimes between two.
      saveMs = await killedSave(path, random(MOST_SAVES + 1), saveMs * (random(1200) / 1000));
      report.leftovers += readdirSync(folder).filter((name) => name !== "a.vhu").length;
      if (!existsSync(path)) {
        if (hadFile) throw new Error(`the old file is gone (seed ${seed}, kill ${index})`);
        report.none += 1;
        continue;
      }
      const result = verifySnapshot(path, { deep: true });
      if (!result.ok) throw new Error(`seed ${seed}, kill ${index}: ${result.problems[0]?.message}`);
      report.whole += 1;
    }
    SnapshotWriter.toFile(path, { writer: { name: "vhu", version: "0" } })[Symbol.dispose]();
    const left = readdirSync(folder).filter((name) => name !== "a.vhu");
    if (left.length > 0) throw new Error(`these are left: ${left.join(", ")}`);
    return report;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Lets `saves` saves end and kills the next one after a while. @returns what a save takes, in ms */
async function killedSave(path: string, saves: number, delayMs: number): Promise<number> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "save-loop.ts"), path], {
    stdout: "pipe",
  });
  let said = "";
  const reader = child.stdout.getReader();
  const lines = () => said.split("\n").slice(0, -1);
  while (lines().length < 1 + saves) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`the saves ended: ${said}`);
    said += new TextDecoder().decode(value);
  }
  await Bun.sleep(delayMs);
  child.kill("SIGKILL");
  await child.exited;
  await reader.cancel();
  return Number(lines()[saves]) || FIRST_GUESS_MS;
}
