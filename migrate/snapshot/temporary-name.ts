import { readdirSync, readFileSync, readlinkSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** What a temporary name says: host and pid namespace (hashed), process, its start time, number. */
const TOKEN = /^([0-9a-f]{8})-(\d+)-(\d+)-\d+\.tmp$/;
/** Field 22 of /proc/PID/stat, counted from the one after the command's closing bracket (proc(5)). */
const START_TIME_FIELD = 19;

let counter = 0;

/** A name beside `path` that tells whose it is, so that somebody else can see when its process is gone. */
export function temporaryName(path: string): string {
  const token = `${hostToken()}-${process.pid}-${startTimeOf(process.pid)}-${counter++}`;
  return join(dirname(path), `.${basename(path)}.${token}.tmp`);
}

/** Removes temporary files for `path` whose writer was killed. Those of another host or container are left alone. */
export function removeLeftovers(path: string): void {
  const prefix = `.${basename(path)}.`;
  try {
    for (const name of readdirSync(dirname(path))) {
      if (!name.startsWith(prefix)) continue;
      const [, host, pid, startTime] = TOKEN.exec(name.slice(prefix.length)) ?? [];
      if (host === hostToken() && startTimeOf(Number(pid)) !== startTime)
        unlinkSync(join(dirname(path), name));
    }
  } catch {
    // They are in nobody's way: a folder that cannot be listed or cleaned does not stop a save.
  }
}

function hostToken(): string {
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8");
  const token = Bun.hash.xxHash32(bootId + readlinkSync("/proc/self/ns/pid"));
  return token.toString(16).padStart(8, "0");
}

/** In clock ticks since boot; undefined where there is no such process. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[START_TIME_FIELD];
  } catch {
    return undefined;
  }
}
