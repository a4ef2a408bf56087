import type { Command } from "commander";
import { isQemuMachine } from "../../migrate/mod.ts";
import { withoutSecrets } from "../../migrate/secrets/mod.ts";
import {
  diffMemory,
  RecordType,
  type SnapshotDevice,
  type SnapshotReader,
  type SnapshotRegion,
} from "../../migrate/snapshot/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { action, addCommand } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import type { Progress } from "../output/progress.ts";
import { diffStates } from "../snapshot/diff-states.ts";

const DIFFERENCE_STATUS = 6;
/** Ranges of a region that are listed for people; JSON has all of them. */
const SHOWN_RANGES = 20;

export function registerSnapshotDiff(parent: Command): void {
  const command = addCommand(parent, {
    usage: "diff <a> <b>",
    description: `show what differs between two snapshots

Devices field by field; their states by content and, where the form is known, field by field, which goes for the device sections of a QEMU
machine too; and memory page by page, the blocks of QEMU machines by their names. Incremental and encrypted snapshots are read as
what they stand for.`,
    examples: [
      ["vhu snapshot diff mon.vhu tue.vhu", "what changed since Monday?"],
      ["vhu snapshot diff mon.vhu tue.vhu --json | jq .memory", "the ranges of memory, for a program"],
    ],
    exitStatus: {
      0: "they hold the same",
      3: "a file is no snapshot, or is damaged",
      4: "a parent or a key is missing",
      6: "they differ",
    },
  });
  addOpeningOptions(command).action(
    action(async ({ output }, leftFile: string, rightFile: string, options: OpeningOptions) => {
      if (leftFile === "-" && rightFile === "-") throw new UsageError("only one of the two can be stdin");
      using left = await aboutLater(leftFile, () => openWith(leftFile, options));
      using right = await aboutLater(rightFile, () => openWith(rightFile, options));
      const devices = diffDevices(left, right);
      const states = await diffStates(left, right);
      using progress = output.json ? undefined : output.progress("compare");
      const memory = diffRegions(left, right, progress);
      const isSame =
        devices.length + states.fields.length === 0 && memory.every(({ ranges }) => ranges.length === 0);
      if (output.json) output.document({ isSame, devices, states: states.fields, memory });
      else
        output.lines(
          isSame
            ? ["they hold the same"]
            : [...devices, ...states.lines, ...memory.flatMap(linesOf)].map(printable),
        );
      return isSame ? 0 : DIFFERENCE_STATUS;
    }),
  );
}

function diffDevices(left: SnapshotReader, right: SnapshotReader): string[] {
  const names = new Set([left, right].flatMap(({ manifest }) => manifest.devices.map(({ name }) => name)));
  return [...names].flatMap((name) => {
    const [a, b] = [left, right].map((reader) => fieldsOf(reader, name));
    if (a === undefined || b === undefined)
      return [`device ${name}: only in the ${a === undefined ? "second" : "first"}`];
    const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
    return [...keys].flatMap((key) => {
      if (Bun.deepEquals(a[key], b[key])) return [];
      const [before, after] = [a[key], b[key]].map((value) => JSON.stringify(withoutSecrets(value)));
      return [`device ${name}: ${key} ${before} became ${after}`];
    });
  });
}

function fieldsOf(reader: SnapshotReader, name: string): Record<string, unknown> | undefined {
  const device: SnapshotDevice | undefined = reader.manifest.devices.find(
    (candidate) => candidate.name === name,
  );
  if (device === undefined) return undefined;
  const { id, ...fields } = device;
  const stream = reader.streams.find(
    (entry) => entry.streamId === id && entry.type === RecordType.deviceState,
  );
  return { ...fields, stateSha256: stream?.sha256 };
}

interface RegionDiff {
  readonly region: string;
  readonly note?: string;
  readonly ranges: readonly { readonly offset: number; readonly sizeBytes: number }[];
}

function diffRegions(left: SnapshotReader, right: SnapshotReader, progress?: Progress): RegionDiff[] {
  const totalBytes = left.memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let before = 0;
  return regionPairs(left, right).map(([a, b]) => {
    const region = a?.name ?? b?.name ?? "";
    if (a !== undefined && a.sizeBytes === b?.sizeBytes) {
      const onProgress = (doneBytes: number) =>
        progress?.update({ doneBytes: before + doneBytes, totalBytes });
      const ranges = [...diffMemory(left, right, a.id, { rightId: b.id, onProgress })];
      before += a.sizeBytes;
      return { region, ranges };
    }
    const sizes = [a, b].map((each) => (each === undefined ? "missing" : formatBytes(each.sizeBytes)));
    const ranges = [{ offset: 0, sizeBytes: Math.max(a?.sizeBytes ?? 0, b?.sizeBytes ?? 0) }];
    return { region, note: `${sizes[0]} became ${sizes[1]}`, ranges };
  });
}

/** Of a QEMU machine the name says which block it is: their order is that of its devices. Else the id does. */
function regionPairs(
  left: SnapshotReader,
  right: SnapshotReader,
): (readonly [SnapshotRegion | undefined, SnapshotRegion | undefined])[] {
  const areQemu = [left, right].every(({ manifest }) => isQemuMachine(manifest.machine));
  const keyOf = ({ id, name }: SnapshotRegion) => (areQemu ? name : `${id}`);
  const keys = new Set([...left.memoryMap, ...right.memoryMap].map(keyOf));
  return [...keys].map((key) => {
    const [a, b] = [left, right].map(({ memoryMap }) => memoryMap.find((region) => keyOf(region) === key));
    return [a, b] as const;
  });
}

function linesOf({ region, note, ranges }: RegionDiff): string[] {
  if (ranges.length === 0) return [];
  if (note !== undefined) return [`memory ${region}: ${note}`];
  const total = ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const shown = ranges.slice(0, SHOWN_RANGES).map(({ offset, sizeBytes }) => {
    return `  0x${offset.toString(16)}…0x${(offset + sizeBytes).toString(16)}`;
  });
  const more = ranges.length > shown.length ? [`  and ${ranges.length - shown.length} more`] : [];
  return [`memory ${region}: ${formatBytes(total)} in ${ranges.length} ranges`, ...shown, ...more];
}
