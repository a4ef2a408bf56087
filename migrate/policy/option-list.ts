/** One `key=value` of a QEMU option; a leading word without a key has the key "". */
export interface OptionPair {
  readonly key: string;
  readonly value: string;
}

/**
 * Takes a QEMU option apart: pairs between commas, where a doubled comma belongs to the value; or, where it begins with a
 * brace, JSON, whose nested keys are joined with dots (QEMU util/keyval.c). Undefined where it is neither.
 *
 * @example parseOptionList("virtio-net-pci,netdev=n0") // [{ key: "", value: "virtio-net-pci" }, { key: "netdev", value: "n0" }]
 */
export function parseOptionList(text: string): OptionPair[] | undefined {
  if (text.startsWith("{")) return parseJsonOption(text);
  const parts = text.match(/(?:,,|[^,])+/g) ?? [];
  return parts.map((part) => {
    const plain = part.replaceAll(",,", ",");
    const at = plain.indexOf("=");
    return at < 0 ? { key: "", value: plain } : { key: plain.slice(0, at), value: plain.slice(at + 1) };
  });
}

/** The option as an argument again: only what was parsed, and so was looked at, is in it. */
export function formatOptionList(pairs: readonly OptionPair[]): string {
  return pairs.map(({ key, value }) => (key === "" ? "" : `${key}=`) + value.replaceAll(",", ",,")).join(",");
}

/** By rank: a device may have a property "type". */
const KIND_KEYS = ["driver", "qom-type", "backend.type", "type"];

/** The same with the kind of a device, object, netdev or the like in front, without its key, however it was written. */
export function parseTypedOption(text: string): OptionPair[] | undefined {
  const pairs = parseOptionList(text);
  if (pairs === undefined || pairs[0]?.key === "") return pairs;
  const at = kindAt(pairs);
  if (at < 0) return pairs;
  return [{ key: "", value: (pairs[at] as OptionPair).value }, ...pairs.slice(0, at), ...pairs.slice(at + 1)];
}

function parseJsonOption(text: string): OptionPair[] | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const pairs: OptionPair[] = [];
  const isPlain = flatten(json, "", pairs);
  // The kind comes first, as in the other form.
  const kind = kindAt(pairs);
  if (!isPlain || kind < 0) return undefined;
  const [{ value }] = pairs.splice(kind, 1) as [OptionPair];
  return [{ key: "", value }, ...pairs];
}

function kindAt(pairs: readonly OptionPair[]): number {
  const kind = KIND_KEYS.find((candidate) => pairs.some(({ key }) => key === candidate));
  return pairs.findIndex(({ key }) => key === kind);
}

function flatten(value: unknown, path: string, into: OptionPair[]): boolean {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return Object.entries(value).every(([key, inner]) =>
      flatten(inner, path === "" ? key : `${path}.${key}`, into),
    );
  }
  if (typeof value === "boolean") into.push({ key: path, value: value ? "on" : "off" });
  else if (typeof value === "string" || typeof value === "number")
    into.push({ key: path, value: String(value) });
  else return false;
  return path !== "";
}
