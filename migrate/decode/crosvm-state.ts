/**
 * What crosvm's vhost-user devices write: what serde makes of their fields, as CBOR, or as JSON in versions before it. The
 * names of the fields are in the bytes; a state inside a state (bytes, or a list of their numbers) is taken apart as well.
 */
import { FormatError } from "../../src/errors.ts";
import { decodeCbor } from "./cbor.ts";
import type { StateTree } from "./state-tree.ts";
import { valueTree } from "./value-tree.ts";

const SECTION = "crosvm state";
const OPENING_BRACE = 0x7b;
/** A shorter list of small numbers is a list of numbers. */
const LEAST_LISTED_BYTES = 8;
/** States within states: crosvm has two. */
const MAX_NESTED_STATES = 4;

/** @throws FormatError */
export function decodeCrosvmState(bytes: Uint8Array): StateTree {
  const isJson = bytes[0] === OPENING_BRACE;
  const value = isJson ? parseJson(bytes) : decodeCbor(bytes, SECTION);
  if (!isRecord(value)) throw new FormatError("the state has no fields", SECTION, 0);
  const note = `crosvm, ${isJson ? "JSON" : "CBOR"}`;
  return { ...expand(valueTree("state", value), 0), note };
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FormatError("the state is not JSON", SECTION, 0, { cause });
  }
}

function isRecord(value: unknown): boolean {
  return value instanceof Map || (typeof value === "object" && value !== null && !Array.isArray(value));
}

/** The same with the states inside it taken apart. */
function expand(tree: StateTree, depth: number): StateTree {
  const bytes = tree.bytes ?? listedBytes(tree);
  if (bytes === undefined) {
    return tree.children === undefined
      ? tree
      : { ...tree, children: tree.children.map((child) => expand(child, depth)) };
  }
  const inner = depth < MAX_NESTED_STATES ? nested(bytes) : undefined;
  if (inner === undefined) return { name: tree.name, bytes };
  return { ...expand(inner, depth + 1), name: tree.name, note: `${bytes.length} bytes` };
}

function nested(bytes: Uint8Array): StateTree | undefined {
  try {
    return decodeCrosvmState(bytes);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

/** JSON, and serde without serde_bytes, have bytes as a list of numbers. */
function listedBytes({ children = [] }: StateTree): Uint8Array | undefined {
  if (children.length < LEAST_LISTED_BYTES) return undefined;
  const isBytes = children.every(
    ({ name, value }) =>
      name.startsWith("[") && Number.isInteger(value) && (value as number) >= 0 && (value as number) < 256,
  );
  return isBytes ? Uint8Array.from(children, ({ value }) => value as number) : undefined;
}
