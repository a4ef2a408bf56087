import { resolve } from "node:path";
import { type OptionPair, parseTypedOption, recordedRole } from "../policy/mod.ts";
import type { BackendRecord } from "./backend-record.ts";

export interface RecordedImage {
  readonly path: string;
  readonly format: string;
  readonly isReadOnly: boolean;
  /** The back-end is not vhu's own: nobody can say when it has written all. */
  readonly isForeign: boolean;
}

/** More block nodes over each other are not followed. */
const MAX_NODES = 100;

/** The image that a back-end serves as a disk, by its command line; undefined where that does not tell. */
export function recordedImage(backend: BackendRecord): RecordedImage | undefined {
  if (backend.type !== "blk") return undefined;
  const { commandLine = [] } = backend;
  const found = recordedRole(commandLine);
  if (found === undefined) return undefined;
  const words = commandLine.slice(found.at + 1);
  if (found.role === "qemu-storage-daemon") return exportedImage(backend, words);
  return found.role === "vhu" ? ownImage(backend, words) : undefined;
}

function ownImage({ workingFolder = "/" }: BackendRecord, words: readonly string[]) {
  const path = ["--image", "--blk-file"]
    .map((name) => optionValues(words, name)[0])
    .find((value) => value !== undefined);
  if (path === undefined) return undefined;
  const isReadOnly = words.includes("--read-only");
  return { path: resolve(workingFolder, path), format: "raw", isReadOnly, isForeign: false };
}

/** From the export at the socket down to the file; each node is on the command line by its name. */
function exportedImage(
  { socket, workingFolder = "/" }: BackendRecord,
  words: readonly string[],
): RecordedImage | undefined {
  const lists = (name: string) => optionValues(words, name).map((text) => parseTypedOption(text) ?? []);
  const served = lists("--export").find(
    (pairs) => resolve(workingFolder, valueIn(pairs, "addr.path") ?? "") === resolve(workingFolder, socket),
  );
  if (served === undefined) return undefined;
  const nodes = lists("--blockdev");
  let name = valueIn(served, "node-name");
  let format: string | undefined;
  for (let depth = 0; depth < MAX_NODES; depth += 1) {
    const node = nodes.find((pairs) => valueIn(pairs, "node-name") === name);
    if (node === undefined) return undefined;
    const driver = valueIn(node, "") ?? "";
    if (driver !== "file" && driver !== "host_device") format ??= driver;
    const path = valueIn(node, "filename") ?? valueIn(node, "file.filename");
    if (path !== undefined) {
      const isReadOnly = valueIn(served, "writable") !== "on";
      return { path: resolve(workingFolder, path), format: format ?? "raw", isReadOnly, isForeign: true };
    }
    name = valueIn(node, "file");
  }
  return undefined;
}

function valueIn(pairs: readonly OptionPair[], key: string): string | undefined {
  return pairs.find((pair) => pair.key === key)?.value;
}

function optionValues(words: readonly string[], name: string): string[] {
  return words.flatMap((word, at) => {
    if (word.startsWith(`${name}=`)) return [word.slice(name.length + 1)];
    return words[at - 1] === name ? [word] : [];
  });
}
