import type { StateTree } from "../../migrate/decode/mod.ts";

/** Children of one entry that people are shown; JSON has all of them. */
const SHOWN_CHILDREN = 100;
const SHOWN_BYTES = 24;
const SHOWN_CHARACTERS = 200;

/** A state as lines, drawn as a tree. */
export function treeLines(tree: StateTree): string[] {
  return [entryText(tree), ...childLines(tree, "")];
}

function childLines({ children = [] }: StateTree, indent: string): string[] {
  const shown = children.slice(0, SHOWN_CHILDREN);
  const hidden = children.length - shown.length;
  const lines = shown.flatMap((child, index) => {
    const isLast = index === shown.length - 1 && hidden === 0;
    return [
      `${indent}${isLast ? "└─" : "├─"} ${entryText(child)}`,
      ...childLines(child, `${indent}${isLast ? "  " : "│ "} `),
    ];
  });
  return hidden === 0 ? lines : [...lines, `${indent}└─ … and ${hidden} more: --json shows all`];
}

function entryText(tree: StateTree): string {
  const value = leafText(tree);
  const note = tree.note === undefined ? "" : ` (${tree.note})`;
  return `${tree.name}${value === "" ? "" : `: ${value}`}${note}`;
}

/** "80", `"disk"`, "12 bytes: 00010203 …"; "" for an entry that only has children. */
export function leafText({ value, bytes }: StateTree): string {
  if (bytes !== undefined) {
    const hex = bytes
      .subarray(0, SHOWN_BYTES)
      .toHex()
      .replace(/(.{8})(?=.)/g, "$1 ");
    return `${bytes.length} bytes${hex === "" ? "" : `: ${hex}`}${bytes.length > SHOWN_BYTES ? " …" : ""}`;
  }
  if (typeof value !== "string") return value === undefined ? "" : String(value);
  return value.length > SHOWN_CHARACTERS
    ? `${JSON.stringify(value.slice(0, SHOWN_CHARACTERS))} …`
    : JSON.stringify(value);
}
