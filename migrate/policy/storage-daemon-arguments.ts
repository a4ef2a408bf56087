import { CompatibilityError } from "../../src/errors.ts";
import { absolutePath, isAllowedPath, type PathPolicy } from "./allowed-path.ts";
import type { DiskFile } from "./disk-chain.ts";
import { formatOptionList, type OptionPair, parseTypedOption } from "./option-list.ts";
import { listArgument, type RebuiltArgument } from "./qemu-arguments.ts";
import { qemuDisks, unseenImage } from "./qemu-disks.ts";
import { kindKeys } from "./qemu-options.ts";

export interface StorageDaemonPolicy extends PathPolicy {
  readonly relocate?: ((socket: string) => string) | undefined;
}

/** Monitors, log options and where it runs are vhu's own business in the new process. */
const DROPPED = ["--chardev", "--monitor", "--pidfile"];
const DROPPED_FLAGS = ["--daemonize"];

const EXPORT_KEYS: Readonly<Record<string, RegExp>> = {
  id: /^[\w.-]{1,255}$/,
  "node-name": /^[\w.#-]{1,255}$/,
  writable: /^(?:on|off)$/,
  "num-queues": /^[0-9]{1,5}$/,
  "logical-block-size": /^[0-9]{1,8}$/,
  iothread: /^[\w.-]{1,255}$/,
  "fixed-iothread": /^(?:on|off)$/,
  "addr.type": /^unix$/,
};

const threadKeys = (option: string, kind: string) =>
  kind === "iothread" ? kindKeys(option, kind) : undefined;

/**
 * The arguments of a recorded qemu-storage-daemon, built anew: block nodes as QEMU's own, exports to vhost-user-blk at a UNIX
 * socket, and I/O threads.
 *
 * @param recorded Without the program.
 * @throws CompatibilityError that names each option that is refused
 */
export function storageDaemonArguments(recorded: readonly string[], policy: StorageDaemonPolicy): string[] {
  const built: string[] = [];
  const refusals: string[] = [];
  for (let at = 0; at < recorded.length; at += 1) {
    const [name = "", inline] = splitOnce(recorded[at] as string);
    if (DROPPED_FLAGS.includes(name)) continue;
    const value = inline ?? recorded[++at] ?? "";
    if (DROPPED.includes(name)) continue;
    const result = rebuilt(name, value, policy);
    if ("refused" in result) refusals.push(`${name} ${value}: ${result.refused}`.trim());
    else built.push(...result.args);
    // Where an option is not known, nobody can say whether it has a value: what follows is not looked at.
    if ("isUnknown" in result) break;
  }
  const unseen = unseenImage(asQemuHasThem(built));
  if (unseen !== undefined) refusals.push(`--blockdev ${unseen}: its qcow2 is in no file of its own`);
  if (refusals.length === 0) return built;
  throw new CompatibilityError(refusals.join("; "));
}

/** The files of its disks: what they stand on has to be looked at before it is started. */
export function storageDaemonDisks(args: readonly string[]): DiskFile[] {
  return qemuDisks(asQemuHasThem(args));
}

function asQemuHasThem(args: readonly string[]): string[] {
  return args.map((word) => (word === "--blockdev" ? "-blockdev" : word));
}

function splitOnce(word: string): [string, string | undefined] {
  const at = word.startsWith("--") ? word.indexOf("=") : -1;
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function rebuilt(
  name: string,
  value: string,
  policy: StorageDaemonPolicy,
): RebuiltArgument | { readonly refused: string; readonly isUnknown: true } {
  switch (name) {
    case "--blockdev":
      return withTwoDashes(listArgument("-blockdev", value, policy));
    case "--object":
      return withTwoDashes(listArgument("-object", value, policy, threadKeys));
    case "--export":
      return exported(value, policy);
    default:
      return { refused: "it is not on the list", isUnknown: true };
  }
}

function withTwoDashes(result: RebuiltArgument): RebuiltArgument {
  if ("refused" in result) return result;
  const [name, value] = result.args as [string, string];
  return { args: [`-${name}`, value] };
}

function exported(value: string, policy: StorageDaemonPolicy): RebuiltArgument {
  const [kind, ...pairs] = parseTypedOption(value) ?? [];
  if (kind?.key !== "" || kind.value !== "vhost-user-blk")
    return { refused: "only vhost-user-blk is allowed" };
  const built: OptionPair[] = [{ key: "type", value: kind.value }];
  for (const pair of pairs) {
    if (pair.key === "addr.path") {
      const path = (policy.relocate ?? String)(absolutePath(pair.value, policy));
      if (!isAllowedPath(path, policy))
        return { refused: `${path} is no absolute path in an allowed folder` };
      built.push({ key: pair.key, value: path });
      continue;
    }
    const form = Object.hasOwn(EXPORT_KEYS, pair.key) ? EXPORT_KEYS[pair.key] : undefined;
    if (form === undefined) return { refused: `${pair.key || pair.value} is not on the list` };
    if (!form.test(pair.value)) return { refused: `${pair.key}=${pair.value} is not allowed` };
    built.push(pair);
  }
  if (!built.some(({ key }) => key === "addr.path")) return { refused: "it has no addr.path" };
  return { args: ["--export", formatOptionList(built)] };
}
