import type { StateTree } from "./state-tree.ts";

/** A field of two states that is not the same in both. */
export interface TreeDifference {
  /** "config.columns"; "" for the whole. */
  readonly path: string;
  /** Absent where the field is only in the other. */
  readonly before?: StateTree | undefined;
  readonly after?: StateTree | undefined;
}

/** Where two trees differ, field by field. Fields are found by their names; notes are not compared. */
export function diffTrees(before: StateTree, after: StateTree, path = ""): TreeDifference[] {
  if (before.children === undefined || after.children === undefined) {
    const isSame = before.children === after.children && isSameLeaf(before, after);
    return isSame ? [] : [{ path, before, after }];
  }
  const [ours, theirs] = [byName(before.children), byName(after.children)];
  const names = new Set([...ours.keys(), ...theirs.keys()]);
  return [...names].flatMap((name) => {
    const [a, b] = [ours.get(name), theirs.get(name)];
    const where = path === "" || name.startsWith("[") ? `${path}${name}` : `${path}.${name}`;
    if (a === undefined || b === undefined) return [{ path: where, before: a, after: b }];
    return diffTrees(a, b, where);
  });
}

/** The second of a name is "name#2". */
function byName(children: readonly StateTree[]): Map<string, StateTree> {
  const found = new Map<string, StateTree>();
  const seen = new Map<string, number>();
  for (const child of children) {
    const count = (seen.get(child.name) ?? 0) + 1;
    seen.set(child.name, count);
    found.set(count === 1 ? child.name : `${child.name}#${count}`, child);
  }
  return found;
}

function isSameLeaf(before: StateTree, after: StateTree): boolean {
  if (before.bytes !== undefined && after.bytes !== undefined) {
    return Buffer.compare(before.bytes, after.bytes) === 0;
  }
  // NaN is the same as NaN here.
  return before.bytes === after.bytes && Object.is(before.value, after.value);
}
