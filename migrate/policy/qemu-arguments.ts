import { CompatibilityError } from "../../src/errors.ts";
import { absolutePath, isAllowedPath, type PathPolicy } from "./allowed-path.ts";
import { formatOptionList, type OptionPair, parseOptionList, parseTypedOption } from "./option-list.ts";
import { unseenImage } from "./qemu-disks.ts";
import { isDeviceKey, kindKeys, LIST_OPTIONS, SIMPLE_OPTIONS, type ValueKind } from "./qemu-options.ts";
import { GLOBAL_PROPERTIES, GLOBAL_VALUE, TEXT_OPTIONS, type TextOption } from "./qemu-text-options.ts";

export type QemuArgumentPolicy = PathPolicy;

/**
 * The arguments of a recorded QEMU command line, built anew from what is understood of it: every option, kind and key is
 * on an allow-list. A command line in a file is data; this is what of it may run.
 *
 * @param recorded Without the program.
 * @throws CompatibilityError that names each option that is refused
 */
export function qemuArguments(recorded: readonly string[], policy: QemuArgumentPolicy): string[] {
  const refusals: string[] = [];
  const built: string[] = [];
  for (let at = 0; at < recorded.length; at += 1) {
    // QEMU takes "--name" for "-name".
    const name = (recorded[at] as string).replace(/^--/, "-");
    const isFlag = SIMPLE_OPTIONS[name] === "flag" || SIMPLE_OPTIONS[name] === "dropped-flag";
    const value = isFlag ? "" : (recorded[at + 1] ?? "");
    if (!isFlag) at += 1;
    const result = isKnown(name) ? rebuild(name, value, policy) : { refused: "it is not on the list" };
    if ("refused" in result) refusals.push(`${name} ${value}: ${result.refused}`.trim());
    else built.push(...result.args);
    // Where an option is not known, nobody can say whether it has a value: what follows is not looked at.
    if (!isKnown(name)) break;
  }
  const unseen = unseenImage(built);
  if (unseen !== undefined) refusals.push(`-blockdev ${unseen}: its qcow2 is in no file of its own`);
  if (refusals.length === 0) return built;
  throw new CompatibilityError(
    `this recorded command line is not run: ${refusals.join("; ")}. Start QEMU yourself with -incoming defer, and load into qmp:PATH`,
    {},
    "POLICY",
  );
}

export type RebuiltArgument = { readonly args: readonly string[] } | { readonly refused: string };

function isKnown(name: string): boolean {
  return (
    Object.hasOwn(SIMPLE_OPTIONS, name) ||
    Object.hasOwn(LIST_OPTIONS, name) ||
    Object.hasOwn(TEXT_OPTIONS, name) ||
    name === "-global" ||
    name === "-serial" ||
    name === "-drive"
  );
}

function rebuild(name: string, value: string, policy: QemuArgumentPolicy): RebuiltArgument {
  if (name === "-serial") return serial(value);
  if (name === "-drive") return drive(value, policy);
  if (name === "-global") return global(value);
  const lists = TEXT_OPTIONS[name];
  if (lists !== undefined) return text(name, value, lists);
  if (Object.hasOwn(LIST_OPTIONS, name)) return listArgument(name, value, policy);
  const kind = SIMPLE_OPTIONS[name];
  if (kind === "flag") return { args: [name] };
  if (kind === "dropped" || kind === "dropped-flag") return { args: [] };
  if (kind === "path") return simplePath(name, absolutePath(value, policy), policy);
  if (kind === "kernel-line") return { args: [name, value] };
  return kind?.includes(value)
    ? { args: [name, value] }
    : { refused: `only ${kind?.join(" or ")} is allowed` };
}

function simplePath(name: string, path: string, policy: QemuArgumentPolicy): RebuiltArgument {
  // For a multiboot kernel that is a list of modules with arguments, of which only the first would have been looked at.
  const isList = name === "-initrd" && /[\s,]/.test(path) && !policy.roots.includes("/");
  return !isList && isAllowedPath(path, policy) ? { args: [name, path] } : outside(path);
}

function text(name: string, value: string, { word, keys, others }: TextOption): RebuiltArgument {
  const pairs = value.startsWith("{") ? undefined : parseOptionList(value);
  if (pairs === undefined) return { refused: "it cannot be read" };
  for (const pair of pairs) {
    const isOwn = Object.hasOwn(keys, pair.key);
    const form =
      pair.key === "" ? word : isOwn ? keys[pair.key] : others?.key.test(pair.key) ? others.value : undefined;
    if (form === undefined) return { refused: `${pair.key || `"${pair.value}"`}= is not allowed` };
    if (!form.test(pair.value)) return { refused: `"${pair.value}" is not allowed` };
  }
  return { args: [name, formatOptionList(pairs)] };
}

/** "DRIVER.PROPERTY=VALUE", or the same as a list. */
function global(value: string): RebuiltArgument {
  const pairs = value.startsWith("{") ? [] : (parseOptionList(value) ?? []);
  const of = (key: string) => pairs.find((pair) => pair.key === key)?.value;
  const [only] = pairs;
  const dot = only?.key.lastIndexOf(".") ?? -1;
  const isShort = pairs.length === 1 && only !== undefined && dot > 0;
  const driver = isShort ? only.key.slice(0, dot) : of("driver");
  const property = isShort ? only.key.slice(dot + 1) : of("property");
  const set = isShort ? only.value : of("value");
  if (driver === undefined || property === undefined || set === undefined || (!isShort && pairs.length !== 3))
    return { refused: "it cannot be read" };
  const isListed = GLOBAL_PROPERTIES.has(property) || isDeviceKey(property);
  if (!isListed || !/^[\w.-]+$/.test(driver)) return { refused: `${driver}.${property} is not on the list` };
  if (!GLOBAL_VALUE.test(set)) return { refused: `"${set}" is not allowed` };
  return { args: ["-global", `driver=${driver},property=${property},value=${set}`] };
}

function serial(value: string): RebuiltArgument {
  const isFit = /^(?:none|null|chardev:[\w.-]+)$/.test(value);
  return isFit ? { args: ["-serial", value] } : { refused: "only none, null and chardev:ID are allowed" };
}

/** A list of keys and values whose kind has its own allow-list. */
export function listArgument(
  name: string,
  value: string,
  policy: QemuArgumentPolicy,
  keysOf: (name: string, kind: string) => ReturnType<typeof kindKeys> = kindKeys,
): RebuiltArgument {
  const [kind, ...recorded] = parseTypedOption(value) ?? [];
  const keys = kind?.key === "" ? keysOf(name, kind.value) : undefined;
  if (kind === undefined || keys === undefined) return { refused: "this kind of it is not on the list" };
  const pairs = recorded.map((pair) => withAbsolutePath(pair, keys, policy));
  const refused = checkPairs(pairs, keys, policy);
  if (refused !== undefined) return { refused };
  const first = name === "-blockdev" ? { key: "driver", value: kind.value } : kind;
  return { args: [name, formatOptionList([first, ...pairs])] };
}

const DRIVE_KEYS: Readonly<Record<string, ValueKind>> = {
  file: "path",
  format: ["raw", "qcow2"],
  ...Object.fromEntries(
    "if id index media readonly cache aio discard detect-zeroes node-name"
      .split(" ")
      .map((key) => [key, "plain"]),
  ),
};

/** Without a format QEMU would guess one from the content, which the guest writes. */
function drive(value: string, policy: QemuArgumentPolicy): RebuiltArgument {
  const recorded = value.startsWith("{") ? [] : (parseOptionList(value) ?? []);
  const pairs = recorded.map((pair) => withAbsolutePath(pair, DRIVE_KEYS, policy));
  const refused = checkPairs(pairs, DRIVE_KEYS, policy);
  if (refused !== undefined) return { refused };
  if (!pairs.some(({ key }) => key === "format")) return { refused: "it has no format=" };
  return { args: ["-drive", formatOptionList(pairs)] };
}

function withAbsolutePath(
  pair: OptionPair,
  keys: Readonly<Record<string, ValueKind>>,
  policy: QemuArgumentPolicy,
): OptionPair {
  const isPath = Object.hasOwn(keys, pair.key) && keys[pair.key] === "path";
  return isPath ? { ...pair, value: absolutePath(pair.value, policy) } : pair;
}

function checkPairs(
  pairs: readonly OptionPair[],
  keys: Readonly<Record<string, ValueKind>>,
  policy: QemuArgumentPolicy,
): string | undefined {
  const seen = new Set<string>();
  for (const pair of pairs) {
    // QEMU takes the last of them; whoever looks at the arguments later must not take another one.
    const refused = seen.has(pair.key) ? `${pair.key}= is there twice` : checkPair(pair, keys, policy);
    if (refused !== undefined) return refused;
    seen.add(pair.key);
  }
  return undefined;
}

function checkPair(
  { key, value }: OptionPair,
  keys: Readonly<Record<string, ValueKind>>,
  policy: QemuArgumentPolicy,
): string | undefined {
  const kind = Object.hasOwn(keys, key) ? keys[key] : undefined;
  if (kind === undefined) return key === "" ? `"${value}" is not allowed` : `${key}= is not allowed`;
  if (kind === "path") {
    // Memory that a vhu has given to this QEMU: the next one replaces it as well (migrate/qemu/share-memory.ts).
    if (key === "mem-path" && /^\/proc\/self\/fd\/[0-9]{1,4}$/.test(value)) return undefined;
    return isAllowedPath(value, policy) ? undefined : outside(value).refused;
  }
  // No key but those for paths has use for a slash.
  if (kind === "plain") return value.includes("/") ? `${key}= may not be a path` : undefined;
  if (kind instanceof RegExp) return kind.test(value) ? undefined : `${key}=${value} is not allowed`;
  return kind.includes(value) ? undefined : `${key}=${value} is not allowed`;
}

function outside(path: string): { readonly refused: string } {
  return { refused: `${path} is no absolute path in an allowed folder` };
}
