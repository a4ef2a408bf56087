import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DamagedKind, makeSnapshot } from "./damage-snapshots.ts";

/** What a reader is given, again and again: the whole file, damaged ones, or those with their checksums mended. */
export const damageReadings = ["intact", "damaged", "mended"] as const;
export type DamageReading = (typeof damageReadings)[number];

/** The most that a reader may need, for what it needs for the intact file. */
const MOST_RATIO = 2;

/** Peaks of processes of their own, in MiB. */
export type DamageMemory = Readonly<Record<DamageReading, number>>;

/** Reads the same snapshot whole, damaged and forged, as often each, in three processes: none of them may need twice the memory of the first. */
export async function measureDamageMemory(
  kind: DamagedKind,
  seed: number,
  flips: number,
  cuts: number,
): Promise<DamageMemory> {
  const folder = mkdtempSync(join(tmpdir(), "vhu-damage-"));
  try {
    const { path, key } = await makeSnapshot(folder, kind);
    const peaks = { intact: 0, damaged: 0, mended: 0 };
    for (const reading of damageReadings) {
      const words = [reading, path, key?.key.toHex() ?? "", seed, flips, cuts].map(String);
      const child = Bun.spawn([process.execPath, join(import.meta.dir, "damage-reader.ts"), ...words], {
        stdout: "pipe",
        stderr: "inherit",
      });
      const said = await child.stdout.text();
      if ((await child.exited) !== 0) throw new Error(`reading it ${reading} failed: ${said}`);
      peaks[reading] = Number(said) / 1024;
    }
    const most = Math.max(peaks.damaged, peaks.mended);
    if (most > MOST_RATIO * peaks.intact)
      throw new Error(`${kind}, seed ${seed}: ${most} MiB, where the intact file needs ${peaks.intact}`);
    return peaks;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
