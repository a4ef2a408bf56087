import { type Command, Option } from "commander";
import {
  exportDirectory,
  exportQemuFile,
  importDirectory,
  importQemuFile,
  isQemuFile,
  isSnapshotDirectory,
  type QemuFileFormat,
  qemuFileFormats,
} from "../../migrate/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import {
  addWritingOptions,
  keyOf,
  rewrite,
  signalFor,
  summarize,
  targetOf,
  type WritingOptions,
  writerOptions,
} from "../snapshot/rewrite.ts";

interface ConvertOptions extends OpeningOptions, WritingOptions {
  readonly to?: (typeof snapshotForms)[number] | QemuFileFormat;
}

/** What `--to` takes beside QEMU's files. */
const snapshotForms = ["vhu", "vhu-0", "directory"] as const;

export function registerSnapshotConvert(parent: Command): void {
  const command = addCommand(parent, {
    usage: "convert <file> <target>",
    description: `write a snapshot anew: version, encryption; from and to directories, QEMU's and libvirt's files

TARGET holds the same machine, compressed anew, in the newest version of the format. It is encrypted with a key of its own where
--encrypt-to or --encrypt-passphrase-file is given; for one of an encrypted FILE that is not, say --decrypt. A signature is not kept. FILE and TARGET may
be "-" where they are snapshots.
--to directory writes a directory of plain files: snapshot.json with all that is JSON in a snapshot, a file for each memory region,
device and stream. Such a directory, edited or not, is a FILE as well: its JSON and the sizes of its files are checked.
--to vhu-0 writes version 0 of the format, for an old vhu; what that has no room for is refused, but for the CPU's name.
FILE may be a migration file of QEMU (migrate file:, exec:cat, with mapped-ram or without) or what "virsh save" wrote
(uncompressed, gzip or zstd): what it is, its first bytes tell. With --to a snapshot of a QEMU machine is written as one of
them: "qemu" for -incoming file:, "qemu-mapped-ram", or "libvirt" for "virsh restore", if it was made of a virsh save file.
docs/qemu-streams.md says what is kept.`,
    examples: [
      ["vhu snapshot convert old.vhu new.vhu", "an old file in the newest version"],
      ["vhu snapshot convert --level 12 web.vhu small.vhu", "smaller, and slower to write"],
      ["vhu snapshot convert --to directory web.vhu web.d", "take it apart, for an editor"],
      ["vhu snapshot convert web.d web.vhu", "and put it together again"],
      ["vhu snapshot convert web.mig web.vhu", "what QEMU wrote with migrate file:web.mig"],
      ["vhu snapshot convert web.save web.vhu", "what virsh save wrote"],
      ["vhu snapshot convert --to qemu web.vhu web.mig", "for qemu-system-x86_64 … -incoming file:web.mig"],
      ["vhu snapshot convert --encrypt-to age1… web.vhu safe.vhu", "encrypt"],
      ["vhu snapshot convert --decrypt --identity key.txt safe.vhu web.vhu", "decrypt"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged, or a directory's JSON is wrong; there is no TARGET",
      4: "a parent or a key is missing, or it is of a kind that cannot be converted",
    },
  });
  addWritingOptions(addOpeningOptions(command))
    .addOption(
      new Option("--to <format>", "what TARGET is")
        .choices([...snapshotForms, ...qemuFileFormats])
        .default("vhu"),
    )
    .action(
      action((context, file: string, target: string, options: ConvertOptions) =>
        convert(context, file, target, options),
      ),
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
  const isDirectory = source.kind === "file" && isSnapshotDirectory(source.path);
  if (to === "vhu" || to === "vhu-0") {
    if (isDirectory) return fromDirectory(context, file, target, options);
    if (isForeign && to === "vhu-0") throw new UsageError("make a snapshot of it first (--to vhu)");
    return isForeign
      ? fromQemu(context, file, target, options)
      : rewrite(context, file, target, { ...options, formatVersion: versionOf(options) });
  }
  if (isForeign || isDirectory) {
    const what = isForeign ? "a file of QEMU or libvirt" : "a directory";
    throw new UsageError(`${file} is ${what} already: make a snapshot of it first (--to vhu)`);
  }
  if ((options.encryptTo ?? options.encryptPassphraseFile) !== undefined) {
    throw new UsageError(`only a snapshot can be encrypted, not what --to ${to} writes`);
  }
  if (to === "directory") return toDirectory(context, file, target, options);
  return toQemu(context, file, target, to, options);
}

function versionOf({ to }: ConvertOptions): number | undefined {
  return to === "vhu-0" ? 0 : undefined;
}

async function fromDirectory(
  context: CommandContext,
  folder: string,
  targetText: string,
  options: ConvertOptions,
): Promise<undefined> {
  const { output } = context;
  const target = targetOf(output, targetText);
  const signal = signalFor(context, target);
  const writing = { ...(await writerOptions(options)), formatVersion: versionOf(options), signal };
  using progress = output.progress("read");
  const { root, sizeBytes } = await aboutLater(folder, () =>
    importDirectory(folder, target, {
      ...writing,
      onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
    }),
  );
  summarize(output, targetText, root, sizeBytes);
  return undefined;
}

async function toDirectory(
  context: CommandContext,
  file: string,
  targetText: string,
  options: OpeningOptions,
): Promise<undefined> {
  const { output } = context;
  const { path } = parseAddressOf(targetText, "target", ["file"]);
  using reader = await aboutLater(file, () => openWith(file, options));
  using progress = output.progress("write");
  await exportDirectory(reader, path, {
    signal: context.signal,
    onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
  });
  output.summary({ folder: path }, () => [
    `${path} is written; vhu snapshot convert ${path} FILE makes a snapshot of it`,
  ]);
  return undefined;
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
  context: CommandContext,
  file: string,
  targetText: string,
  format: QemuFileFormat,
  options: OpeningOptions,
): Promise<undefined> {
  const { output } = context;
  const { path } = parseAddressOf(targetText, "target", ["file"]);
  using reader = await aboutLater(file, () => openWith(file, options));
  using progress = output.progress("write");
  await exportQemuFile(reader, path, format, {
    signal: context.signal,
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
