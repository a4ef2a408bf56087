import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CompatibilityError, FormatError, SyscallError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_SIBLINGS } from "../../src/limits.ts";
import { FileInput } from "./file-input.ts";
import type { ParentLink } from "./parent-link.ts";
import { readRoot } from "./structure.ts";

/**
 * Where a file's parent is: among `candidates`, else beside the child under the name that it had, else any file beside it
 * with that root. A name from a file never leads out of the folder.
 *
 * @throws CompatibilityError where it is nowhere
 */
export function findParent(
  link: ParentLink,
  childPath: string | undefined,
  candidates: readonly string[],
): string {
  const folder = childPath === undefined ? undefined : dirname(childPath);
  const beside = folder === undefined ? [] : [join(folder, basename(link.file)), ...snapshotsIn(folder)];
  const found = [...candidates, ...beside].find((path) => rootOf(path) === link.root);
  if (found !== undefined) return found;
  throw new CompatibilityError(
    `the snapshot is based on ${JSON.stringify(basename(link.file))}, which is not there: put it beside this one, or name it with --parent (root ${link.root})`,
    { details: { root: link.root, file: link.file } },
    "PARENT_MISSING",
  );
}

function snapshotsIn(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => name.endsWith(".vhu"));
  return names.slice(0, MAX_SNAPSHOT_SIBLINGS).map((name) => join(folder, name));
}

function rootOf(path: string): string | undefined {
  try {
    using input = FileInput.open(path);
    return readRoot(input);
  } catch (error) {
    const isOther = [FormatError, CompatibilityError, SyscallError].some((kind) => error instanceof kind);
    if (!isOther) throw error;
    return undefined;
  }
}
