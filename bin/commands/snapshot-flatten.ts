import type { Command } from "commander";
import { action, addCommand } from "../command.ts";
import { addOpeningOptions, type OpeningOptions } from "../credentials.ts";
import { addWritingOptions, rewrite, type WritingOptions } from "../snapshot/rewrite.ts";

export function registerSnapshotFlatten(parent: Command): void {
  const command = addCommand(parent, {
    usage: "flatten <file> <target>",
    description: `make a full snapshot of one that is based on others

The new file needs no other. What it holds is unpacked in memory on the way, a region at a time. The files that FILE is based on
are looked for beside it, by the root hash that it knows; or name them with --parent. Of encrypted files, say whether
TARGET is to be encrypted. FILE and TARGET may be "-".`,
    examples: [
      ["vhu snapshot flatten tue.vhu tue-full.vhu", "tue.vhu and what it is based on, in one file"],
      ["vhu snapshot flatten --parent /backup/mon.vhu tue.vhu full.vhu", "the base is elsewhere"],
    ],
    exitStatus: {
      3: "a file is no snapshot, or is damaged; there is no new one",
      4: "a file that it is based on is missing, or is of another machine",
    },
  });
  addWritingOptions(addOpeningOptions(command)).action(
    action((context, file: string, target: string, options: OpeningOptions & WritingOptions) =>
      rewrite(context, file, target, { ...options, label: "flatten", what: "a full snapshot" }),
    ),
  );
}
