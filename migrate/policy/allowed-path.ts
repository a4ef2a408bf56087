import { isAbsolute, normalize, resolve } from "node:path";
import { CompatibilityError } from "../../src/errors.ts";
import { isPlacedBelow } from "./real-place.ts";

/** What paths of a recorded command line may be. */
export interface PathPolicy {
  /** Folders that paths may lie in; "/" for a command line that this user's own vhu recorded. */
  readonly roots: readonly string[];
  /** What the recorded relative paths are relative to; without it they are refused. */
  readonly workingFolder?: string | undefined;
  /** Paths that this user gave on the command line: they may lie anywhere. */
  readonly given?: ReadonlySet<string> | undefined;
  /** Images that are not there yet, and that vhu will make: they stand on nothing. */
  readonly made?: ReadonlySet<string> | undefined;
}

/** A recorded path, absolute where it can be made so. */
export function absolutePath(path: string, { workingFolder }: PathPolicy): string {
  // "nbd:" and "fat:" are no paths, and stay what they are.
  if (workingFolder === undefined || path === "" || isAbsolute(path) || path.includes(":")) return path;
  return resolve(workingFolder, path);
}

/** Absolute, without "..", without a protocol ("nbd:", "fat:"), and below a root; or given by the user. */
export function isAllowedPath(path: string, { roots, given }: PathPolicy): boolean {
  if (!isAbsolute(path) || path.includes("\0") || normalize(path) !== path || path.includes(":"))
    return false;
  if (given?.has(path)) return true;
  if (/^\/(?:proc|sys|dev\/fd)(?:\/|$)/.test(path) || path.startsWith("/dev/fdset")) return false;
  return roots.some((root) => root === "/" || isPlacedBelow(path, root));
}

/** @throws CompatibilityError POLICY */
export function requireAllowedFile(path: string, policy: PathPolicy): void {
  if (isAllowedPath(path, policy)) return;
  throw new CompatibilityError(
    `${path} is not used: it is no file in an allowed folder (--root)`,
    {},
    "POLICY",
  );
}
