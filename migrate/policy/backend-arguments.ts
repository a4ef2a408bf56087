import { basename } from "node:path";
import { CompatibilityError } from "../../src/errors.ts";
import { absolutePath, isAllowedPath, type PathPolicy } from "./allowed-path.ts";
import {
  type BackendOption,
  type BackendOptions,
  VHU_DEVICE_OPTIONS,
  VIRTIOFSD_OPTIONS,
} from "./backend-options.ts";
import { formatOptionList, type OptionPair, parseOptionList } from "./option-list.ts";
import { storageDaemonArguments } from "./storage-daemon-arguments.ts";

/** Which program serves a device: local policy knows where it is here. */
export type BackendRole = "vhu" | "virtiofsd" | "qemu-storage-daemon";

export interface BackendArgumentPolicy extends PathPolicy {
  /** Where a recorded socket is to be in the new machine. */
  readonly relocate?: ((socket: string) => string) | undefined;
}

export interface BackendArguments {
  readonly role: BackendRole;
  /** Without the program. */
  readonly args: readonly string[];
}

/** How programs are named when they run: behind an interpreter or a loader, too. */
const PROGRAMS: Readonly<Record<string, BackendRole>> = {
  vhu: "vhu",
  "vhu.ts": "vhu",
  "vhu.js": "vhu",
  virtiofsd: "virtiofsd",
  "qemu-storage-daemon": "qemu-storage-daemon",
};

/** The program that a recorded command line runs, by its name, and where that stands; undefined for one that is not known. */
export function recordedRole(
  commandLine: readonly string[],
): { readonly role: BackendRole; readonly at: number } | undefined {
  const at = commandLine.findIndex((word) => Object.hasOwn(PROGRAMS, basename(word)));
  return at < 0 ? undefined : { role: PROGRAMS[basename(commandLine[at] as string)] as BackendRole, at };
}

/**
 * The arguments of a recorded back-end, built anew from what is understood of them. What stood in front of the program's
 * name is of no interest: the program comes from local policy.
 *
 * @param recorded With the program.
 * @throws CompatibilityError that names each option that is refused
 */
export function backendArguments(
  recorded: readonly string[],
  policy: BackendArgumentPolicy,
): BackendArguments {
  const found = recordedRole(recorded);
  if (found === undefined) {
    const known = "vhu device run, virtiofsd, qemu-storage-daemon";
    throw refusal(recorded, [`it is no back-end that vhu knows how to start (${known})`]);
  }
  const { role } = found;
  const words = recorded.slice(found.at + 1);
  if (role === "qemu-storage-daemon") return { role, args: storageDaemon(words, policy, recorded) };
  if (role === "virtiofsd") return { role, args: rebuild(words, VIRTIOFSD_OPTIONS, policy, recorded) };
  const [noun, verb, type = "", ...rest] = words;
  const options = Object.hasOwn(VHU_DEVICE_OPTIONS, type) ? VHU_DEVICE_OPTIONS[type] : undefined;
  if (noun !== "device" || verb !== "run" || options === undefined) {
    throw refusal(recorded, [`"${[noun, verb, type].join(" ")}" is not on the list`]);
  }
  const args = rebuild(rest, options, policy, recorded);
  // It ends with its QEMU: nobody else would end it.
  return { role, args: ["device", "run", type, ...args, "--once"] };
}

function storageDaemon(
  words: readonly string[],
  policy: BackendArgumentPolicy,
  recorded: readonly string[],
): string[] {
  try {
    return storageDaemonArguments(words, policy);
  } catch (error) {
    if (error instanceof CompatibilityError) throw refusal(recorded, [error.message]);
    throw error;
  }
}

function rebuild(
  words: readonly string[],
  options: BackendOptions,
  policy: BackendArgumentPolicy,
  recorded: readonly string[],
): string[] {
  const refusals: string[] = [];
  const built: string[] = [];
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] as string;
    const [name = "", inline] = splitOnce(word);
    const option = Object.hasOwn(options, name) ? options[name] : undefined;
    if (option === undefined) {
      refusals.push(`${word} is not on the list`);
      // Nobody can say whether it has a value: what follows is not looked at.
      break;
    }
    const isFlag = option === "flag" || option === "own-flag" || option === "dropped-flag";
    if (isFlag && inline !== undefined) refusals.push(`${name} takes no value`);
    const value = isFlag ? "" : (inline ?? words[++at] ?? "");
    const result = checked(name, option, value, policy);
    if ("refused" in result) refusals.push(result.refused);
    else built.push(...result.args);
  }
  if (refusals.length > 0) throw refusal(recorded, refusals);
  return built;
}

function splitOnce(word: string): [string, string | undefined] {
  const at = word.indexOf("=");
  return at < 0 || !word.startsWith("--") ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

type Result = { readonly args: readonly string[] } | { readonly refused: string };

function checked(name: string, option: BackendOption, value: string, policy: BackendArgumentPolicy): Result {
  const refused = (why: string): Result => ({ refused: `${name} ${value}: ${why}` });
  const taken: Result = { args: [name, value] };
  switch (option) {
    case "dropped":
    case "dropped-flag":
      return { args: [] };
    case "flag":
      return { args: [name] };
    case "own-flag":
      return policy.roots.includes("/") ? { args: [name] } : refused("only your own snapshot may have it");
    case "number":
      return /^[0-9]{1,15}$/.test(value) ? taken : refused("it is no number");
    case "word":
      return /^[\w.:,@+-]{1,255}$/.test(value) && !value.startsWith("-")
        ? taken
        : refused("it may not be a path");
    case "path":
      return pathResult(name, value, policy);
    case "socket":
      return pathResult(name, (policy.relocate ?? String)(absolutePath(value, policy)), policy);
    case "ports":
      return ports(name, value, policy);
    default:
      return option.includes(value) ? taken : refused(`only ${option.join(" or ")} is allowed`);
  }
}

function pathResult(name: string, value: string, policy: BackendArgumentPolicy): Result {
  const path = absolutePath(value, policy);
  if (isAllowedPath(path, policy)) return { args: [name, path] };
  return { refused: `${name} ${value}: it is no absolute path in an allowed folder` };
}

/** A console's port, "name=log,file=PATH": see `vhu device run console`. */
function ports(name: string, value: string, policy: BackendArgumentPolicy): Result {
  const pairs: OptionPair[] = [];
  for (const pair of parseOptionList(value) ?? []) {
    const kind = PORT_KEYS[pair.key === "" ? pair.value : pair.key];
    if (kind === undefined)
      return { refused: `${name} ${value}: ${pair.key || pair.value} is not on the list` };
    if (pair.key === "") pairs.push(pair);
    else {
      const result = checked(name, kind, pair.value, policy);
      if ("refused" in result) return result;
      pairs.push({ key: pair.key, value: result.args[1] as string });
    }
  }
  return { args: [name, formatOptionList(pairs)] };
}

const PORT_KEYS: BackendOptions = {
  name: "word",
  console: ["on", "off"],
  file: "path",
  pty: "path",
  socket: "socket",
};

function refusal(recorded: readonly string[], reasons: readonly string[]): CompatibilityError {
  return new CompatibilityError(
    `this recorded back-end is not run: ${reasons.join("; ")} (${recorded.join(" ")}). Start it yourself, and load with --no-backends`,
    {},
    "POLICY",
  );
}
