import { FormatError } from "../../src/errors.ts";
import { MAX_STATE_TREE_DEPTH } from "../../src/limits.ts";
import type { StateTree } from "./state-tree.ts";

/**
 * A plain value (of msgpack, CBOR or JSON) as a tree: an entry for each key and each index.
 *
 * @throws FormatError for one that is nested too deeply
 */
export function valueTree(name: string, value: unknown, depth = 0): StateTree {
  if (depth > MAX_STATE_TREE_DEPTH) {
    throw new FormatError(`a value has more than ${MAX_STATE_TREE_DEPTH} levels`, `state field ${name}`);
  }
  if (value instanceof Uint8Array) return { name, bytes: value };
  if (Array.isArray(value)) {
    return { name, children: value.map((item, index) => valueTree(`[${index}]`, item, depth + 1)) };
  }
  if (value instanceof Map) {
    return {
      name,
      children: [...value].map(([key, item]) => valueTree(String(key), item, depth + 1)),
    };
  }
  if (typeof value === "object" && value !== null) {
    return {
      name,
      children: Object.entries(value).map(([key, item]) => valueTree(key, item, depth + 1)),
    };
  }
  if (isScalar(value)) return { name, value };
  return { name, note: "nothing" };
}

function isScalar(value: unknown): value is string | number | bigint | boolean {
  return ["string", "number", "bigint", "boolean"].includes(typeof value);
}
