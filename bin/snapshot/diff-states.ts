import { diffTrees, type StateTree } from "../../migrate/decode/mod.ts";
import type { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { deviceTrees } from "./device-trees.ts";
import { type TreeDocument, treeDocument } from "./tree-document.ts";
import { leafText } from "./tree-lines.ts";

/** Fields of one device that are listed for people; JSON has all of them. */
const SHOWN_FIELDS = 40;
const SHOWN_BYTES = 8;

/** One field of a device's state, or one of QEMU's sections, that is not the same in both. */
export interface StateDifference {
  readonly device: string;
  /** "queues[0].size"; "" for the whole. */
  readonly field: string;
  /** Absent where only the other snapshot has it. */
  readonly before?: TreeDocument;
  readonly after?: TreeDocument;
}

interface DeviceDifferences {
  readonly fields: readonly StateDifference[];
  readonly lines: readonly string[];
}

/** Where the states of two snapshots differ, field by field as far as their forms are known. @throws FormatError */
export async function diffStates(left: SnapshotReader, right: SnapshotReader): Promise<DeviceDifferences> {
  const [ours, theirs] = [await deviceTrees(left), await deviceTrees(right)];
  const fields: StateDifference[] = [];
  const lines: string[] = [];
  for (const device of new Set([...ours.keys(), ...theirs.keys()])) {
    const [before, after] = [ours.get(device), theirs.get(device)];
    if (before === undefined || after === undefined) {
      fields.push({ device, field: "", ...sides(before, after) });
      lines.push(`state ${device}: only in the ${before === undefined ? "second" : "first"}`);
      continue;
    }
    const differences = diffTrees(before, after);
    for (const each of differences)
      fields.push({ device, field: each.path, ...sides(each.before, each.after) });
    for (const { path, before: a, after: b } of differences.slice(0, SHOWN_FIELDS)) {
      lines.push(`state ${device}: ${path === "" ? "" : `${path} `}${changeText(a, b)}`);
    }
    const hidden = differences.length - SHOWN_FIELDS;
    if (hidden > 0) lines.push(`state ${device}: … and ${hidden} more: --json shows all`);
  }
  return { fields, lines };
}

function sides(before: StateTree | undefined, after: StateTree | undefined) {
  return {
    ...(before === undefined ? {} : { before: treeDocument(before) }),
    ...(after === undefined ? {} : { after: treeDocument(after) }),
  };
}

function changeText(before: StateTree | undefined, after: StateTree | undefined): string {
  if (before?.bytes !== undefined && after?.bytes !== undefined) return bytesText(before.bytes, after.bytes);
  return `${textOf(before)} became ${textOf(after)}`;
}

/** Of bytes, the first that are not the same. */
function bytesText(before: Uint8Array, after: Uint8Array): string {
  if (before.length !== after.length) return `${before.length} bytes became ${after.length} bytes`;
  const at = before.findIndex((byte, index) => byte !== after[index]);
  const [a, b] = [before, after].map((bytes) => bytes.subarray(at, at + SHOWN_BYTES).toHex());
  const more = at + SHOWN_BYTES < before.length ? " …" : "";
  return `${before.length} bytes: from ${at}, ${a}${more} became ${b}${more}`;
}

function textOf(tree: StateTree | undefined): string {
  if (tree === undefined) return "nothing";
  const leaf = leafText(tree);
  if (leaf !== "") return leaf;
  return tree.children === undefined ? (tree.note ?? "nothing") : `${tree.children.length} entries`;
}
