import { readFileSync } from "node:fs";
import { type Command, Option } from "commander";
import {
  exportQemuFile,
  importQemuFile,
  isQemuFile,
  OwnSnapshots,
  type QemuFileFormat,
  qemuFileFormats,
  rewriteSnapshot,
} from "../../migrate/mod.ts";
import { type NewFileKey, newFileKey } from "../../migrate/snapshot/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { SyscallError, UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { collect } from "../collect.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith, passphraseIn } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { deviceNamed } from "../snapshot/device-named.ts";

interface ConvertOptions extends OpeningOptions {
  readonly encryptTo?: readonly string[];
  readonly encryptPassphraseFile?: readonly string[];
  readonly to?: "vhu" | QemuFileFormat;
}

interface ReplaceOptions extends ConvertOptions {
  readonly device: string;
  readonly state: string;
}

export function registerSnapshotConvert(parent: Command): void {
  const command = addCommand(parent, {
    usage: "convert <file> <target>",
    description: `write a snapshot anew: in the newest version, full, encrypted or not; from QEMU's and libvirt's files, and to them

TARGET holds the same machine, compressed anew, in the newest version of the format. It is encrypted with a key of its own where
--encrypt-to or --encrypt-passphrase-file is given, else it is not, whatever FILE was. A signature is not kept.
FILE may be a migration file of QEMU (migrate file:, exec:cat, with mapped-ram or without) or what "virsh save" wrote
(uncompressed, gzip or zstd): what it is, its first bytes tell. A snapshot may come through stdin ("-"), these may not. With --to a snapshot of a QEMU machine is written as one of
them: "qemu" for -incoming file:, "qemu-mapped-ram", or "libvirt" for "virsh restore", if it was made of a virsh save file.
docs/qemu-streams.md says what is kept.`,
    examples: [
      ["vhu snapshot convert old.vhu new.vhu", "an old file in the newest version"],
      ["vhu snapshot convert web.mig web.vhu", "what QEMU wrote with migrate file:web.mig"],
      ["vhu snapshot convert web.save web.vhu", "what virsh save wrote"],
      ["vhu snapshot convert --to qemu web.vhu web.mig", "for qemu-system-x86_64 … -incoming file:web.mig"],
      ["vhu snapshot convert --encrypt-to age1… web.vhu safe.vhu", "encrypt"],
      ["vhu snapshot convert --identity key.txt safe.vhu web.vhu", "decrypt"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; there is no TARGET",
      4: "a parent or a key is missing, or it is of a kind that cannot be converted",
    },
  });
  addEncryptOptions(addOpeningOptions(command))
    .addOption(
      new Option("--to <format>", "what TARGET is").choices(["vhu", ...qemuFileFormats]).default("vhu"),
    )
    .action(
      action((context, file: string, target: string, options: ConvertOptions) =>
        convert(context, file, target, options),
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

async function convert(
  context: CommandContext,
  file: string,
  target: string,
  options: ConvertOptions,
): Promise<undefined> {
  const { to = "vhu" } = options;
  const source = parseAddressOf(file, "file", ["file", "stdio"]);
  const isForeign = source.kind === "file" && isQemuFile(source.path);
  if (to === "vhu") {
    return isForeign ? fromQemu(context, file, target, options) : rewrite(context, file, target, options);
  }
  if (isForeign) {
    throw new UsageError(
      `${file} is a file of QEMU or libvirt already: make a snapshot of it first (--to vhu)`,
    );
  }
  if ((options.encryptTo ?? options.encryptPassphraseFile) !== undefined) {
    throw new UsageError(`a file for QEMU or libvirt (--to ${to}) cannot be encrypted`);
  }
  return toQemu(context, file, target, to, options);
}

async function fromQemu(
  { output, signal }: CommandContext,
  file: string,
  targetText: string,
  options: ConvertOptions,
): Promise<undefined> {
  const { path } = parseAddressOf(targetText, "target", ["file"]);
  const fileKey = await keyOf(options);
  using progress = output.progress("read");
  const { root, sizeBytes, machine } = await aboutLater(file, () =>
    importQemuFile(file, path, {
      signal,
      fileKey,
      writer: { name: "vhu", version },
      onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
    }),
  );
  output.summary(
    { file: path, root, sizeBytes, machineType: machine.machineType, origin: machine.origin },
    () => [
      `${path}: ${formatBytes(sizeBytes)}, ${printable(machine.machineType)}, ${machine.runState}`,
      `  root ${root}`,
      "  not known, as the file does not tell: QEMU's version and command line, CPU model, disks, back-ends",
      `  load it into a QEMU that waits: vhu migrate load ${path} qmp:PATH`,
    ],
  );
  return undefined;
}

async function toQemu(
  { output, signal }: CommandContext,
  file: string,
  targetText: string,
  format: QemuFileFormat,
  options: OpeningOptions,
): Promise<undefined> {
  const { path } = parseAddressOf(targetText, "target", ["file"]);
  using reader = await aboutLater(file, () => openWith(file, options));
  using progress = output.progress("write");
  await exportQemuFile(reader, path, format, {
    signal,
    onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
  });
  output.summary({ file: path, format }, () => [`${path} is written: ${HOW_TO_LOAD[format]}`]);
  return undefined;
}

const HOW_TO_LOAD: Readonly<Record<QemuFileFormat, string>> = {
  qemu: "-incoming file:PATH loads it",
  "qemu-mapped-ram": "with the capability mapped-ram, migrate-incoming file:PATH loads it",
  libvirt: "virsh restore loads it",
};

async function keyOf(options: ConvertOptions): Promise<NewFileKey | undefined> {
  const to = {
    recipients: options.encryptTo ?? [],
    passphrases: (options.encryptPassphraseFile ?? []).map(passphraseIn),
  };
  return to.recipients.length + to.passphrases.length === 0 ? undefined : await newFileKey(to);
}

async function rewrite(
  { output, signal }: CommandContext,
  file: string,
  targetText: string,
  options: ConvertOptions,
  replaced?: Pick<ReplaceOptions, "device" | "state">,
): Promise<undefined> {
  const { path } = parseAddressOf(targetText, "target", ["file"]);
  const fileKey = await keyOf(options);
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
