import { statSync } from "node:fs";
import { join } from "node:path";
import { runVhu } from "../bin/run-vhu.ts";
import { BOOT_TIMEOUT_MS, beats, livingGuest, startListening, waitForBeats } from "./living-guest.ts";
import { isAlive, killQuietly, waitUntil } from "./started-machines.ts";

export interface SizeReport {
  readonly memoryGib: number;
  readonly saveMs: number;
  readonly loadMs: number;
  readonly fileMib: number;
}

/** A guest of each size is saved, ended and loaded by one command; it has to be the same life, and to have missed nothing. */
export async function saveAndLoadSizes(dir: string, sizesGib: readonly number[]): Promise<SizeReport[]> {
  const reports: SizeReport[] = [];
  for (const size of sizesGib) reports.push(await saveAndLoad(dir, size));
  return reports;
}

async function saveAndLoad(dir: string, memoryGib: number): Promise<SizeReport> {
  // What is in memory: files of random bytes, a tenth of it.
  const mebibytes = Math.floor(memoryGib * 102);
  const before = `mount -o remount,size=90% /tmp; dd if=/dev/urandom of=/tmp/bulk bs=1M count=${mebibytes} 2>/dev/null`;
  const guest = livingGuest({ dir, before });
  const name = `vm${memoryGib}`;
  await using source = await startListening({ dir, name, guest, memoryMib: memoryGib * 1024, args: [] });
  const { nonce } = await waitForBeats(source, 3);
  const file = join(dir, `${name}.vhu`);
  const env = { XDG_STATE_HOME: join(dir, "state") };
  const saveMs = await timed(["migrate", "save", "--stop", `qmp:${source.qmpPath}`, file], env);
  await source.waitForExit(BOOT_TIMEOUT_MS);
  const last = beats(source).at(-1)!.count;
  const startMs = performance.now();
  const loaded = await runVhu(["migrate", "load", "--json", file], { env });
  const loadMs = Math.round(performance.now() - startMs);
  if (loaded.status !== 0) throw new Error(loaded.stderr);
  const { pid } = JSON.parse(loaded.stdout.trim().split("\n").at(-1)!) as { pid: number };
  try {
    await waitUntil(() => beats(source).length >= 3);
    const [first] = beats(source);
    if (first?.nonce !== nonce || first.count !== last + 1) {
      throw new Error(`${memoryGib} GiB: after count ${last} came ${JSON.stringify(first)}`);
    }
  } finally {
    killQuietly(pid);
    await waitUntil(() => !isAlive(pid));
  }
  return { memoryGib, saveMs, loadMs, fileMib: Math.round(statSync(file).size / 2 ** 20) };
}

async function timed(words: readonly string[], env: Readonly<Record<string, string>>): Promise<number> {
  const startMs = performance.now();
  const ran = await runVhu(words, { env });
  if (ran.status !== 0) throw new Error(ran.stderr);
  return Math.round(performance.now() - startMs);
}
