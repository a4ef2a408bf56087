import type { Command } from "commander";
import { OwnSnapshots, rewriteSnapshot } from "../../migrate/mod.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";

const STDOUT = 1;

export function registerSnapshotFlatten(parent: Command): void {
  const command = addCommand(parent, {
    usage: "flatten <file> <target>",
    description: `make a full snapshot of one that is based on others

The new file needs no other. What it holds is unpacked in memory on the way, a region at a time. The files that FILE is based on
are looked for beside it, by the root hash that it knows; or name them with --parent. TARGET may be "-" for stdout.`,
    examples: [
      ["vhu snapshot flatten tue.vhu tue-full.vhu", "tue.vhu and what it is based on, in one file"],
      ["vhu snapshot flatten --parent /backup/mon.vhu tue.vhu full.vhu", "the base is elsewhere"],
    ],
    exitStatus: {
      3: "a file is no snapshot, or is damaged; there is no new one",
      4: "a file that it is based on is missing, or is of another machine",
    },
  });
  addOpeningOptions(command).action(
    action((context, file: string, target: string, options: OpeningOptions) =>
      flatten(context, file, target, options),
    ),
  );
}

async function flatten(
  { output, signal }: CommandContext,
  file: string,
  targetText: string,
  options: OpeningOptions,
): Promise<undefined> {
  const target = parseAddressOf(targetText, "snapshot", ["file", "stdio"]);
  if (target.kind === "stdio") output.reserveStdout();
  using reader = await aboutLater(file, () => openWith(file, options));
  using progress = output.progress("flatten");
  const { root, sizeBytes } = await rewriteSnapshot(reader, target.kind === "file" ? target.path : STDOUT, {
    signal,
    onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
  });
  const own = new OwnSnapshots();
  if (own.has(reader.root)) own.add(root);
  output.summary({ file: targetText, root, sizeBytes }, () => [
    `${targetText}: ${formatBytes(sizeBytes)}, a full snapshot`,
    `  root ${root}`,
  ]);
  return undefined;
}
