import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { SyscallError } from "../../src/errors.ts";
import { action, addCommand } from "../command.ts";
import { addOpeningOptions, type OpeningOptions } from "../credentials.ts";
import { deviceNamed } from "../snapshot/device-named.ts";
import { addWritingOptions, rewrite, type WritingOptions } from "../snapshot/rewrite.ts";

interface ReplaceOptions extends OpeningOptions, WritingOptions {
  readonly device: string;
  readonly state: string;
}

export function registerSnapshotReplace(parent: Command): void {
  const command = addCommand(parent, {
    usage: "replace <file> <target>",
    description: `write a snapshot anew, with another state for one device

For repairs and experiments: the bytes of --state are stored as they are, and only the back-end will say whether it takes them. FILE and TARGET may be "-".`,
    examples: [
      ["vhu snapshot extract --device disk web.vhu disk.state", "take the state out"],
      ["vhu snapshot replace --device disk --state disk.state web.vhu new.vhu", "put another one in"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; there is no TARGET",
      4: "a parent or a key is missing",
    },
  });
  addWritingOptions(addOpeningOptions(command))
    .requiredOption("--device <name>", "whose state")
    .requiredOption("--state <file>", "the new state")
    .action(
      action((context, file: string, target: string, options: ReplaceOptions) =>
        rewrite(context, file, target, options, (reader) => {
          const { id } = deviceNamed(reader, options.device);
          return new Map([[id, contentOf(options.state)]]);
        }),
      ),
    );
}

function contentOf(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
