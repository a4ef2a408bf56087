import { readdirSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { hostIdentity, startTicksOf } from "../../src/sys/mod.ts";

/** What a temporary name says: host and pid namespace (hashed), process, its start time, number. */
const TOKEN = /^([0-9a-f]{8})-(\d+)-(\d+)-\d+\.tmp$/;

let counter = 0;

/** A name beside `path` that tells whose it is, so that somebody else can see when its process is gone. */
export function temporaryName(path: string): string {
  const token = `${hostToken()}-${process.pid}-${startTicksOf(process.pid)}-${counter++}`;
  return join(dirname(path), `.${basename(path)}.${token}.tmp`);
}

/** Removes temporary files for `path` whose writer was killed. Those of another host or container are left alone. */
export function removeLeftovers(path: string): void {
  const prefix = `.${basename(path)}.`;
  try {
    for (const name of readdirSync(dirname(path))) {
      if (!name.startsWith(prefix)) continue;
      const [, host, pid, startTime] = TOKEN.exec(name.slice(prefix.length)) ?? [];
      if (host === hostToken() && startTicksOf(Number(pid)) !== startTime)
        unlinkSync(join(dirname(path), name));
    }
  } catch {
    // They are in nobody's way: a folder that cannot be listed or cleaned does not stop a save.
  }
}

function hostToken(): string {
  const { bootId, pidNamespace } = hostIdentity();
  const token = Bun.hash.xxHash32(bootId + pidNamespace);
  return token.toString(16).padStart(8, "0");
}
