import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { OwnSnapshots, rewriteSnapshot } from "../../migrate/mod.ts";
import { newFileKey } from "../../migrate/snapshot/mod.ts";
import { SyscallError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { collect } from "../collect.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith, passphraseIn } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";
import { deviceNamed } from "../snapshot/device-named.ts";

interface ConvertOptions extends OpeningOptions {
  readonly encryptTo?: readonly string[];
  readonly encryptPassphraseFile?: readonly string[];
}

interface ReplaceOptions extends ConvertOptions {
  readonly device: string;
  readonly state: string;
}

export function registerSnapshotConvert(parent: Command): void {
  const command = addCommand(parent, {
    usage: "convert <file> <target>",
    description: `write a snapshot anew: in the newest version, full, encrypted or not

TARGET holds the same machine, compressed anew, in the newest version of the format. It is encrypted with a key of its own where
--encrypt-to or --encrypt-passphrase-file is given, else it is not, whatever FILE was. A signature is not kept.`,
    examples: [
      ["vhu snapshot convert old.vhu new.vhu", "an old file in the newest version"],
      ["vhu snapshot convert --encrypt-to age1… web.vhu safe.vhu", "encrypt"],
      ["vhu snapshot convert --identity key.txt safe.vhu web.vhu", "decrypt"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; there is no TARGET",
      4: "a parent or a key is missing",
    },
  });
  addEncryptOptions(addOpeningOptions(command)).action(
    action((context, file: string, target: string, options: ConvertOptions) =>
      rewrite(context, file, target, options),
    ),
  );
}

export function registerSnapshotReplace(parent: Command): void {
  const command = addCommand(parent, {
    usage: "replace <file> <target>",
    description: `write a snapshot anew, with another state for one device

For repairs and experiments: the bytes of --state are stored as they are, and only the back-end will say whether it takes them.`,
    examples: [
      ["vhu snapshot extract --device disk web.vhu disk.state", "take the state out"],
      ["vhu snapshot replace --device disk --state disk.state web.vhu new.vhu", "put another one in"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; there is no TARGET",
      4: "a parent or a key is missing",
    },
  });
  addEncryptOptions(addOpeningOptions(command))
    .requiredOption("--device <name>", "whose state")
    .requiredOption("--state <file>", "the new state")
    .action(
      action((context, file: string, target: string, options: ReplaceOptions) =>
        rewrite(context, file, target, options, options),
      ),
    );
}

function addEncryptOptions(command: Command): Command {
  return command
    .option("--encrypt-to <recipient>", "encrypt to an age recipient (age1…); may be repeated", collect)
    .option(
      "--encrypt-passphrase-file <file>",
      "encrypt with the passphrase in a file; may be repeated",
      collect,
    );
}

async function rewrite(
  { output, signal }: CommandContext,
  file: string,
  targetText: string,
  options: ConvertOptions,
  replaced?: Pick<ReplaceOptions, "device" | "state">,
): Promise<undefined> {
  const { path } = parseAddressOf(targetText, "target", ["file"]);
  const to = {
    recipients: options.encryptTo ?? [],
    passphrases: (options.encryptPassphraseFile ?? []).map(passphraseIn),
  };
  const fileKey = to.recipients.length + to.passphrases.length === 0 ? undefined : await newFileKey(to);
  using reader = await aboutLater(file, () => openWith(file, options));
  const deviceStates =
    replaced && new Map([[deviceNamed(reader, replaced.device).id, contentOf(replaced.state)] as const]);
  using progress = output.progress("write");
  const { root, sizeBytes } = await rewriteSnapshot(reader, path, {
    signal,
    fileKey,
    deviceStates,
    onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
  });
  // Whoever changed a state wrote that file; a converted one is as trusted as it was.
  const own = new OwnSnapshots();
  if (own.has(reader.root)) own.add(root);
  output.summary({ file: path, root, sizeBytes }, () => [
    `${path}: ${formatBytes(sizeBytes)}`,
    `  root ${root}`,
  ]);
  return undefined;
}

function contentOf(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
