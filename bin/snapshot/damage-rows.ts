/** What the page about a damaged file says, in the terminal and in a browser. */
import { formatBytes, formatCount } from "../output/format.ts";
import type { DamageDescription } from "./describe-damage.ts";
import { placed } from "./problem-text.ts";

const SHOWN_RANGES = 8;
const SHOWN_PROBLEMS = 20;
/** What stands where nothing of a part is left. */
export const LOST = "LOST";

/** The parts of the file, and what is left of each. */
export function believedRows(damage: DamageDescription): [string, string][] {
  const { header, manifest, parent, root, wholeRecords, lostBytes } = damage;
  const counts = Object.entries(wholeRecords).map(([name, count]) => `${count} × ${name}`);
  const rows: [string, string][] = [];
  const yes = (what: string, detail: string | undefined) => rows.push([what, detail ?? LOST]);
  const lockedOr = (detail: string | undefined) => (damage.isLocked ? "not without a key" : detail);
  yes(
    "header",
    header
      ? `${header.id}, ${header.createdAt} by ${header.writer.name} ${header.writer.version}`
      : lockedOr(undefined),
  );
  if (header !== undefined) {
    const { host, runState, machine, labels } = header;
    yes(
      "machine",
      `${machine?.name ?? "(without a name)"}${runState === undefined ? "" : `, ${runState}`}; Linux ${host.kernel}, ${host.architecture}, CPU ${host.cpu}`,
    );
    for (const [key, label] of Object.entries(labels)) yes(`label ${key}`, label);
  }
  yes("manifest", manifest ? formatCount(manifest.devices.length, "device") : lockedOr(undefined));
  yes(
    "memory map",
    damage.memory.length === 0 ? lockedOr(undefined) : formatCount(damage.memory.length, "region"),
  );
  yes("index, root", root);
  if (parent !== undefined) yes("based on", `${parent.file}, root ${parent.root}`);
  yes("whole records", counts.length === 0 ? "none" : counts.join(", "));
  rows.push(["lost", `${formatBytes(lostBytes)} belong to no whole record`]);
  return rows;
}

/** Each state: its name, a verdict, and how much of it is there. */
export function stateRows({ states, manifest }: DamageDescription): [string, string, string][] {
  const missing = (manifest?.devices ?? []).filter(
    ({ name, stateBytes }) => stateBytes > 0 && !states.some((state) => state.name === name),
  );
  const rows = states.map(({ name, sizeBytes, expectedBytes, hasGap, isWhole }): [string, string, string] => {
    const size = sizeBytes === undefined ? "size unknown without a key" : formatBytes(sizeBytes);
    const of = expectedBytes === undefined ? "" : ` of ${formatBytes(expectedBytes)}`;
    const verdict = isWhole
      ? "whole"
      : isWhole === false || hasGap
        ? "BROKEN"
        : "whole as far as can be seen";
    return [name, verdict, `${size}${isWhole ? "" : of}`];
  });
  const lost = missing.map(({ name, stateBytes }): [string, string, string] => [
    name,
    LOST,
    `0 B of ${formatBytes(stateBytes)}`,
  ]);
  return [...rows, ...lost];
}

/** The damaged places, then the memory that is lost. */
export function problemLines(damage: DamageDescription): string[] {
  const ranges = damage.memory.flatMap(({ name, lost }) => {
    const shown = lost.slice(0, SHOWN_RANGES).map(({ offset, sizeBytes }) => {
      return `memory ${name} 0x${offset.toString(16)}…0x${(offset + sizeBytes).toString(16)}`;
    });
    return lost.length > SHOWN_RANGES
      ? [...shown, `memory ${name}: and ${lost.length - SHOWN_RANGES} more ranges`]
      : shown;
  });
  const names = damage.manifest?.devices ?? [];
  const problems = damage.problems
    .slice(0, SHOWN_PROBLEMS)
    .map((problem) => placed(problem, names, damage.memory));
  const more =
    damage.problems.length > SHOWN_PROBLEMS
      ? [`and ${damage.problems.length - SHOWN_PROBLEMS} more places`]
      : [];
  return [...problems, ...more, ...ranges];
}
