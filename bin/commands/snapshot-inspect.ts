import type { Command } from "commander";
import { about } from "../about.ts";
import { action, addCommand } from "../command.ts";
import { openSnapshot } from "../open-snapshot.ts";
import { describeSnapshot } from "../snapshot/describe.ts";
import { snapshotPage } from "../snapshot/page.ts";

export function registerSnapshotInspect(parent: Command): void {
  addCommand(parent, {
    usage: "inspect <file>",
    description: `show what is in a snapshot

Reads the header, the manifest and the index, checks them against the root hash, and shows who made the
snapshot, of what machine and devices, and what its memory is made of. Costs little at any size. It does not
read the memory itself: "vhu snapshot verify" does. FILE may be "-" for stdin.`,
    examples: [
      ["vhu snapshot inspect web.vhu", "a page about the snapshot"],
      ["vhu snapshot inspect web.vhu --json | jq '.devices[].type'", "the same for a program"],
      ["ssh host cat web.vhu | vhu snapshot inspect -", "a snapshot that comes through a pipe"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; the message names the place",
      4: "a newer vhu is needed to read it",
    },
  }).action(
    action(({ output }, file: string) => {
      const description = about(file, () => {
        using reader = openSnapshot(file);
        return describeSnapshot(reader);
      });
      if (output.json) output.document(description);
      else output.lines(snapshotPage(file, description));
    }),
  );
}
