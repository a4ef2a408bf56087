import type { Command } from "commander";
import { lockedSnapshot } from "../../migrate/snapshot/mod.ts";
import { about, aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { describeSnapshot } from "../snapshot/describe.ts";
import { lockedPage } from "../snapshot/locked-page.ts";
import { snapshotPage } from "../snapshot/page.ts";

export function registerSnapshotInspect(parent: Command): void {
  const command = addCommand(parent, {
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
  });
  addOpeningOptions(command).action(
    action(async ({ output }, file: string, options: OpeningOptions) => {
      const source = parseAddressOf(file, "snapshot", ["file", "stdio"]);
      const locked = source.kind === "stdio" ? undefined : about(file, () => lockedSnapshot(source.path));
      if (locked !== undefined && options.identity === undefined && options.passphraseFile === undefined) {
        if (output.json) output.document({ isEncrypted: true, ...locked });
        else output.lines(lockedPage(file, locked));
        return;
      }
      const description = await aboutLater(file, async () => {
        using reader = await openWith(file, options);
        return describeSnapshot(reader);
      });
      if (output.json) output.document(description);
      else output.lines(snapshotPage(file, description));
    }),
  );
}
