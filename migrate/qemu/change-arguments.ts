import { resolve } from "node:path";
import { CompatibilityError, UsageError } from "../../src/errors.ts";
import { formatOptionList, type OptionPair, parseTypedOption } from "../policy/mod.ts";

/** Another file for a disk. */
export interface DiskChange {
  /** What the disk's file was: one of these is in the recorded arguments. */
  readonly from: readonly string[];
  readonly path: string;
  /** "raw", "qcow2". */
  readonly format: string;
}

/** `--set ID.KEY=VALUE`: another property for what has that id. */
export interface PropertyChange {
  readonly id: string;
  readonly key: string;
  readonly value: string;
}

export interface ArgumentChanges {
  readonly disks?: readonly DiskChange[] | undefined;
  readonly properties?: readonly PropertyChange[] | undefined;
  /** Another place for a chardev's socket or file. */
  readonly relocate?: ((path: string, chardev: string) => string) | undefined;
  /** What recorded relative paths are relative to. */
  readonly workingFolder?: string | undefined;
  /** The machine was not saved, and goes on as itself. */
  readonly keepsGeneration?: boolean | undefined;
}

interface Argument {
  readonly name: string;
  pairs: OptionPair[];
  readonly at: number;
}

const LISTS = ["-device", "-chardev", "-netdev", "-object", "-blockdev", "-drive"];

/**
 * Recorded arguments with what this user wants otherwise. The outcome is data as before: policy looks at it afterwards.
 * @throws UsageError when nothing has the id, CompatibilityError when a disk is not on the command line
 */
export function changeArguments(recorded: readonly string[], changes: ArgumentChanges): string[] {
  const args = [...recorded];
  const lists = argumentsOf(recorded);
  for (const change of changes.disks ?? []) changeDisk(lists, change, changes.workingFolder);
  for (const change of changes.properties ?? []) changeProperty(lists, change);
  if (!changes.keepsGeneration) for (const argument of lists) renewGeneration(argument);
  if (changes.relocate !== undefined) relocateChardevs(lists, changes.relocate);
  for (const { at, pairs } of lists) args[at] = formatOptionList(pairs);
  return args;
}

function argumentsOf(recorded: readonly string[]): Argument[] {
  const found: Argument[] = [];
  for (let at = 0; at + 1 < recorded.length; at += 1) {
    const name = (recorded[at] as string).replace(/^--/, "-");
    if (!LISTS.includes(name)) continue;
    at += 1;
    const pairs = parseTypedOption(recorded[at] as string);
    if (pairs === undefined) continue;
    // -blockdev knows no kind without its key.
    const [first] = pairs;
    if (name === "-blockdev" && first?.key === "") pairs[0] = { key: "driver", value: first.value };
    found.push({ name, pairs, at });
  }
  return found;
}

function value({ pairs }: Argument, key: string): string | undefined {
  return pairs.find((pair) => pair.key === key)?.value;
}

function set(argument: Argument, key: string, to: string): void {
  const at = argument.pairs.findIndex((pair) => pair.key === key);
  if (at < 0) argument.pairs.push({ key, value: to });
  else argument.pairs[at] = { key, value: to };
}

const FILE_KEYS = ["file", "filename", "file.filename"];

function changeDisk(
  lists: readonly Argument[],
  { from, path, format }: DiskChange,
  workingFolder = "/",
): void {
  for (const argument of lists) {
    if (argument.name !== "-drive" && argument.name !== "-blockdev") continue;
    const key = FILE_KEYS.find((candidate) => {
      const file = value(argument, candidate);
      return file !== undefined && from.includes(resolve(workingFolder, file));
    });
    if (key === undefined) continue;
    set(argument, key, path);
    setFormat(lists, argument, key, format);
    return;
  }
  throw new CompatibilityError(
    `the disk ${from.join(", ")} is not on the recorded command line, so it cannot be given another file`,
  );
}

function setFormat(lists: readonly Argument[], argument: Argument, key: string, format: string): void {
  if (argument.name === "-drive") set(argument, "format", format);
  else if (key === "file.filename") setDriver(argument, format);
  else setFormatOver(lists, value(argument, "node-name"), format);
}

/** The file is a node of its own; its format is that of the node over it. */
function setFormatOver(lists: readonly Argument[], node: string | undefined, format: string): void {
  const above = lists.find((other) => other.name === "-blockdev" && value(other, "file") === node);
  if (above !== undefined) setDriver(above, format);
  else if (format !== "raw") {
    throw new CompatibilityError(
      `the node ${node} is used without a format over it: only a raw file can replace its file`,
    );
  }
}

function setDriver(argument: Argument, format: string): void {
  if (value(argument, "driver") === format) return;
  if (value(argument, "offset") !== undefined || value(argument, "size") !== undefined) {
    throw new CompatibilityError(
      `the node ${value(argument, "node-name")} is a part of its file: it cannot be ${format}`,
    );
  }
  set(argument, "driver", format);
}

function changeProperty(lists: readonly Argument[], { id, key, value: to }: PropertyChange): void {
  const found = lists.filter((each) => value(each, "id") === id || value(each, "node-name") === id);
  // A device before what it is made of: an id may be that of both.
  const [target] = [...found.filter(({ name }) => name === "-device"), ...found];
  if (target === undefined) {
    throw new UsageError(`--set ${id}.${key}: nothing on the recorded command line has the id ${id}`);
  }
  set(target, key, to);
}

/** A VM that goes on from a snapshot is another generation of itself (vmgenid): so that its guest draws new random numbers. */
function renewGeneration(argument: Argument): void {
  const isGeneration = argument.name === "-device" && argument.pairs[0]?.value === "vmgenid";
  if (isGeneration) set(argument, "guid", "auto");
}

function relocateChardevs(
  lists: readonly Argument[],
  relocate: (path: string, chardev: string) => string,
): void {
  for (const argument of lists) {
    const [path, id] = [value(argument, "path"), value(argument, "id")];
    if (argument.name !== "-chardev" || path === undefined || id === undefined) continue;
    set(argument, "path", relocate(path, id));
  }
}
