import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import type { PreflightCheck, VmDriver } from "../migrate/driver.ts";
import { formatBytes } from "./output/format.ts";

/** Memory that is in use compresses to a quarter or so; with less room than an eighth there is no point in trying. */
const LEAST_PART = 8;

/** Whether a snapshot has room where it is to go. How well it compresses is known only afterwards. */
export async function spaceCheck(driver: VmDriver, path: string): Promise<PreflightCheck> {
  const { memoryBytes, residentBytes = memoryBytes } = await driver.describe();
  const folder = dirname(path);
  const name = "space";
  let freeBytes: number;
  try {
    const { bavail, bsize } = statfsSync(folder);
    freeBytes = bavail * bsize;
  } catch {
    return { name, ok: false, detail: `there is no folder ${folder}` };
  }
  const ok = freeBytes >= residentBytes / LEAST_PART;
  const figures = `${formatBytes(freeBytes)} free in ${folder}, ${formatBytes(residentBytes)} of memory in use`;
  return { name, ok, detail: ok ? figures : `${figures}: choose another place` };
}
