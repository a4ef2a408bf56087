import { lstatSync, realpathSync } from "node:fs";
import { basename, dirname, join, sep } from "node:path";

/**
 * Whether a path lies in a folder, by its name and by where it leads: a guest that shares the folder may have put a
 * symbolic link into it.
 */
export function isPlacedBelow(path: string, folder: string): boolean {
  const real = realPlace(path);
  return isBelow(path, folder) && real !== undefined && isBelow(real, realPlace(folder) ?? folder);
}

function isBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
}

/** The path without symbolic links, as far as it is there; undefined where a link leads nowhere. */
function realPlace(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) return undefined;
    const folder = realPlace(dirname(path));
    return folder === undefined ? undefined : join(folder, basename(path));
  }
}
