import type { Stats } from "node:fs";
import { StateError } from "../../src/errors.ts";

const OTHERS_WRITE = 0o022;

/**
 * What decides here what runs, or which processes are ended, may be written by this user and root only, as ssh wants it of its
 * own files.
 *
 * @throws StateError that names the file, and what to do
 */
export function requireOwn(path: string, { uid, mode }: Pick<Stats, "uid" | "mode">, remedy: string): void {
  const own = process.geteuid?.() ?? uid;
  if (uid !== own && uid !== 0) {
    throw new StateError(
      `${path} is not used: it belongs to user ${uid}, and this is user ${own}; ${remedy}`,
    );
  }
  if ((mode & OTHERS_WRITE) === 0) return;
  throw new StateError(
    `${path} is not used: others can write it (mode ${(mode & 0o777).toString(8)}); see that nobody has, then chmod go-w`,
  );
}
