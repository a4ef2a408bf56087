import type { Command } from "commander";
import type { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { aboutLater } from "../about.ts";
import { action, addCommand } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";

export function registerSnapshotStats(parent: Command): void {
  const command = addCommand(parent, {
    usage: "stats <file>",
    description: `show what the bytes of a snapshot are made of

Records by type, memory by kind of extent, and what compression made of it. Only the index is read. FILE may be "-" for stdin.`,
    examples: [
      ["vhu snapshot stats web.vhu", "where do the bytes go?"],
      ["vhu snapshot stats web.vhu --json | jq .memory", "for a program"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged",
      4: "a key is missing, or a newer vhu is needed",
    },
  });
  addOpeningOptions(command).action(
    action(async ({ output }, file: string, options: OpeningOptions) => {
      using reader = await aboutLater(file, () => openWith(file, options));
      const { sizeBytes, stats } = reader;
      const document = { sizeBytes, ...stats, records: recordsOf(reader), memory: memoryOf(reader) };
      if (output.json) output.document(document);
      else {
        output.lines([
          ...formatTable(rowsOf(document.records), ["records of type", "count", "bytes"]).map(printable),
          "",
          ...formatTable(rowsOf(document.memory), ["memory that is", "extents", "bytes"]),
          "",
          `${formatBytes(stats.dataBytes)} of data as ${formatBytes(stats.compressedBytes)} of frames; the file has ${formatBytes(sizeBytes)}`,
        ]);
      }
    }),
  );
}

interface Sum {
  count: number;
  sizeBytes: number;
}

function recordsOf(reader: SnapshotReader): Record<string, Sum> {
  return sums(reader.records().map(({ typeName, payloadBytes }) => [typeName, payloadBytes]));
}

function memoryOf(reader: SnapshotReader): Record<string, Sum> {
  const extents = reader.memoryMap.flatMap(({ id }) => reader.extents(id));
  return sums(extents.map(({ kind, sizeBytes }) => [kind, sizeBytes]));
}

function sums(entries: readonly (readonly [name: string, sizeBytes: number])[]): Record<string, Sum> {
  const byName: Record<string, Sum> = {};
  for (const [name, sizeBytes] of entries) {
    byName[name] ??= { count: 0, sizeBytes: 0 };
    byName[name].count += 1;
    byName[name].sizeBytes += sizeBytes;
  }
  return byName;
}

function rowsOf(byName: Readonly<Record<string, Sum>>): [string, number, string][] {
  return Object.entries(byName).map(([name, { count, sizeBytes }]) => [name, count, formatBytes(sizeBytes)]);
}
