import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { lockedSnapshot, SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { FormatError, SyscallError, VhuError } from "../../src/errors.ts";
import { action, addCommand } from "../command.ts";
import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";

export function registerSnapshotList(parent: Command): void {
  addCommand(parent, {
    usage: "list <folder>",
    description: `list the snapshots in a folder

Every file that ends in .vhu: what machine, when, how large, and whether it is full, incremental, encrypted or damaged. Only
headers and indexes are read.`,
    examples: [["vhu snapshot list /var/backups", "what is there?"]],
  }).action(
    action(({ output }, folder: string) => {
      const snapshots = namesIn(folder).map((name) => ({ name, ...lineOf(join(folder, name)) }));
      if (output.json) output.document({ snapshots });
      else {
        const rows = snapshots.map(({ name, machine, createdAt, kind, sizeBytes }) =>
          [name, machine, createdAt, formatBytes(sizeBytes), kind].map(printable),
        );
        output.lines(formatTable(rows, ["file", "machine", "made", "size", "kind"]));
      }
    }),
  );
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => name.endsWith(".vhu"))
      .sort();
  } catch (error) {
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", folder);
  }
}

function lineOf(path: string) {
  try {
    const locked = lockedSnapshot(path);
    if (locked !== undefined)
      return { machine: "", createdAt: "", sizeBytes: locked.sizeBytes, kind: "encrypted" };
    using reader = SnapshotReader.open(path);
    const { header, manifest, parent, root, sizeBytes } = reader;
    const { name } = manifest.machine ?? {};
    const machine = typeof name === "string" ? name : (header.machine?.name ?? "");
    const kind = parent === undefined ? "full" : `on ${parent.file}`;
    return { machine, createdAt: header.createdAt, sizeBytes, kind, root };
  } catch (error) {
    if (!(error instanceof VhuError)) throw error;
    // A directory, a pipe, or a file that may not be read says nothing of damage.
    const sizeBytes = fileBytes(path);
    const what = error instanceof FormatError && sizeBytes !== undefined ? "damaged" : "cannot be read";
    return {
      machine: "",
      createdAt: "",
      sizeBytes: sizeBytes ?? 0,
      kind: `${what}: ${error.message}`,
    };
  }
}

/** Undefined for what is no file, or cannot be looked at. */
function fileBytes(path: string): number | undefined {
  try {
    const stats = statSync(path);
    return stats.isFile() ? stats.size : undefined;
  } catch {
    return undefined;
  }
}
