import { RecordType, recordTypeName, type SalvagedSnapshot } from "../../migrate/snapshot/mod.ts";
import { formatBytes, formatCount } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";
import { lostRanges, type MemoryPlace } from "./lost-ranges.ts";
import { memoryCells } from "./memory-cells.ts";
import { mapPart } from "./page.ts";
import { placed } from "./problem-text.ts";

const MAP_CELLS = 64;
const SHOWN_RANGES = 8;
const SHOWN_PROBLEMS = 20;

export type DamageDescription = ReturnType<typeof describeDamage>;

/** What can be believed of a damaged file, and what cannot, as a document. */
export function describeDamage(salvaged: SalvagedSnapshot) {
  const { records, streams, extents, manifest, memoryMap = [], ...rest } = salvaged;
  const counts: Record<string, number> = {};
  for (const { type } of records) {
    const name = recordTypeName(type);
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return {
    isDamaged: true,
    ...rest,
    manifest,
    hasIndex: rest.root !== undefined,
    wholeRecords: counts,
    states: streams.map(({ type, streamId, sizeBytes, hasGap }) => {
      const device = manifest?.devices.find(({ id }) => id === streamId);
      const isDevice = type === RecordType.deviceState;
      const expectedBytes = isDevice ? device?.stateBytes : undefined;
      const isWhole = expectedBytes === undefined ? undefined : !hasGap && sizeBytes === expectedBytes;
      const name = isDevice ? (device?.name ?? `device ${streamId}`) : recordTypeName(type);
      return { name, sizeBytes, expectedBytes, hasGap, isWhole };
    }),
    memory: memoryMap.map((region) => {
      const own = extents.filter(({ regionId }) => regionId === region.id);
      const places: readonly MemoryPlace[] = own;
      const lost = lostRanges(places, region.sizeBytes);
      const lostBytes = lost.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      return { ...region, lostBytes, lost, map: memoryCells(own, region.sizeBytes, MAP_CELLS, lost) };
    }),
  };
}

/** The page of `vhu snapshot inspect` for a file that does not open. */
export function damagedPage(file: string, damage: DamageDescription): string[] {
  return [
    `${file}: a DAMAGED snapshot, ${formatBytes(damage.sizeBytes)}. Nothing of it should be run.`,
    "",
    "what can be believed",
    ...formatTable(believedRows(damage)),
    ...statePart(damage),
    ...memoryPart(damage),
    "",
    "what cannot",
    ...problemPart(damage),
  ].map(printable);
}

function believedRows(damage: DamageDescription): [string, string][] {
  const { header, manifest, parent, root, wholeRecords, lostBytes } = damage;
  const counts = Object.entries(wholeRecords).map(([name, count]) => `${count} × ${name}`);
  const rows: [string, string][] = [];
  const yes = (what: string, detail: string | undefined) => rows.push([`  ${what}`, detail ?? "LOST"]);
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
  rows.push(["  lost", `${formatBytes(lostBytes)} belong to no whole record`]);
  return rows;
}

function statePart({ states, manifest }: DamageDescription): string[] {
  const missing = (manifest?.devices ?? []).filter(
    ({ name, stateBytes }) => stateBytes > 0 && !states.some((state) => state.name === name),
  );
  const rows = states.map(({ name, sizeBytes, expectedBytes, hasGap, isWhole }) => {
    const size = sizeBytes === undefined ? "size unknown without a key" : formatBytes(sizeBytes);
    const of = expectedBytes === undefined ? "" : ` of ${formatBytes(expectedBytes)}`;
    const verdict = isWhole
      ? "whole"
      : isWhole === false || hasGap
        ? "BROKEN"
        : "whole as far as can be seen";
    return [`  ${name}`, verdict, `${size}${isWhole ? "" : of}`];
  });
  const lost = missing.map(({ name, stateBytes }) => [
    `  ${name}`,
    "LOST",
    `0 B of ${formatBytes(stateBytes)}`,
  ]);
  const all = [...rows, ...lost];
  return all.length === 0 ? [] : ["", "states", ...formatTable(all)];
}

function memoryPart({ memory }: DamageDescription): string[] {
  if (memory.length === 0) return [];
  const rows = memory.map(({ name, sizeBytes, lostBytes }) => {
    const verdict = lostBytes === 0 ? "whole" : `LOST: ${formatBytes(lostBytes)}`;
    return [`  ${name}`, formatBytes(sizeBytes), verdict];
  });
  return ["", "memory", ...formatTable(rows), ...mapPart(memory)];
}

function problemPart(damage: DamageDescription): string[] {
  const ranges = damage.memory.flatMap(({ name, lost }) => {
    const shown = lost.slice(0, SHOWN_RANGES).map(({ offset, sizeBytes }) => {
      return `  memory ${name} 0x${offset.toString(16)}…0x${(offset + sizeBytes).toString(16)}`;
    });
    return lost.length > SHOWN_RANGES
      ? [...shown, `  memory ${name}: and ${lost.length - SHOWN_RANGES} more ranges`]
      : shown;
  });
  const names = damage.manifest?.devices ?? [];
  const problems = damage.problems
    .slice(0, SHOWN_PROBLEMS)
    .map((problem) => `  ${placed(problem, names, damage.memory)}`);
  const more =
    damage.problems.length > SHOWN_PROBLEMS
      ? [`  and ${damage.problems.length - SHOWN_PROBLEMS} more places`]
      : [];
  return [...problems, ...more, ...ranges];
}
