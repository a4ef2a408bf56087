import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";
import { believedRows, problemLines, stateRows } from "./damage-rows.ts";
import type { DamageDescription } from "./describe-damage.ts";
import { mapPart } from "./page.ts";

/** The page of `vhu snapshot inspect` for a file that does not open. */
export function damagedPage(file: string, damage: DamageDescription): string[] {
  return [
    `${file}: a DAMAGED snapshot, ${formatBytes(damage.sizeBytes)}. Nothing of it should be run.`,
    "",
    "what can be believed",
    ...formatTable(believedRows(damage).map(indented)),
    ...statePart(damage),
    ...memoryPart(damage),
    "",
    "what cannot",
    ...problemLines(damage).map((line) => `  ${line}`),
  ].map(printable);
}

function statePart(damage: DamageDescription): string[] {
  const rows = stateRows(damage).map(indented);
  return rows.length === 0 ? [] : ["", "states", ...formatTable(rows)];
}

function memoryPart({ memory }: DamageDescription): string[] {
  if (memory.length === 0) return [];
  const rows = memory.map(({ name, sizeBytes, lostBytes }) => {
    const verdict = lostBytes === 0 ? "whole" : `LOST: ${formatBytes(lostBytes)}`;
    return indented([name, formatBytes(sizeBytes), verdict]);
  });
  return ["", "memory", ...formatTable(rows), ...mapPart(memory)];
}

function indented([first, ...others]: readonly string[]): string[] {
  return [`  ${first}`, ...others];
}
