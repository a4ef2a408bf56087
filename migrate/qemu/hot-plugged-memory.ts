import { type OptionPair, objectKeys } from "../policy/mod.ts";

/** What a backend of any kind is made with; the others are written where they differ from nothing. */
const ALWAYS = ["size", "share"];
/** Values that say nothing. */
const USUAL = new Set<unknown>(["", 0, false, "default", undefined, null]);

/**
 * The argument that makes a memory backend that was added to a running QEMU.
 *
 * @param values of its properties, by name
 * @returns the pairs, or why it cannot be said
 */
export function memoryBackendPairs(
  id: string,
  type: string,
  values: ReadonlyMap<string, unknown>,
): readonly OptionPair[] | string {
  const keys = objectKeys(type);
  if (keys === undefined || !type.startsWith("memory-backend-")) return `its memory ${id} is a ${type}`;
  const nodes = values.get("host-nodes");
  if (Array.isArray(nodes) && nodes.length > 0) return `its memory ${id} is bound to nodes of the host`;
  const pairs: OptionPair[] = [
    { key: "", value: type },
    { key: "id", value: id },
  ];
  for (const [name, value] of values) {
    if (!keys.has(name) || name === "id" || name === "host-nodes") continue;
    // What is on unless one turns it off is written either way.
    const isSaid = ALWAYS.includes(name) || typeof value === "boolean" || !USUAL.has(value);
    if (!isSaid) continue;
    if (typeof value === "boolean") pairs.push({ key: name, value: value ? "on" : "off" });
    else if (typeof value === "string" || typeof value === "number")
      pairs.push({ key: name, value: String(value) });
  }
  return pairs;
}
