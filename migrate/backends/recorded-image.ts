import { basename, resolve } from "node:path";
import type { BackendRecord } from "./backend-record.ts";

/** The image that a `vhu device run blk` serves, by its command line. */
export function recordedImage({
  type,
  commandLine = [],
  workingFolder = "/",
}: BackendRecord): { readonly path: string; readonly isReadOnly: boolean } | undefined {
  const program = commandLine.findIndex((word) => /^vhu(?:\.[jt]s)?$/.test(basename(word)));
  if (type !== "blk" || program < 0) return undefined;
  const words = commandLine.slice(program);
  const path = ["--image", "--blk-file"]
    .map((name) => optionValue(words, name))
    .find((found) => found !== undefined);
  if (path === undefined) return undefined;
  return { path: resolve(workingFolder, path), isReadOnly: words.includes("--read-only") };
}

function optionValue(words: readonly string[], name: string): string | undefined {
  const inline = words.find((word) => word.startsWith(`${name}=`));
  if (inline !== undefined) return inline.slice(name.length + 1);
  const at = words.indexOf(name);
  return at < 0 ? undefined : words[at + 1];
}
