import type { Command } from "commander";
import { DiskCopies } from "../../migrate/disks/mod.ts";
import { OwnSnapshots } from "../../migrate/policy/mod.ts";
import { type ChangesBy, requirePassed, type SaveResult, saveMachine } from "../../migrate/save.ts";
import { newFileKey, type SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { collect } from "../collect.ts";
import { action, addCommand, type CommandContext, type CommandPage } from "../command.ts";
import { type OpeningOptions, openWith, passphraseIn } from "../credentials.ts";
import { DISKS_OPTION, diskCare } from "../disk-option.ts";
import { openDriver } from "../open-driver.ts";
import { formatBytes, formatCount, formatDuration } from "../output/format.ts";
import { spaceCheck } from "../space-check.ts";
import { absoluteAddress, withOperation } from "../with-operation.ts";

interface SaveOptions {
  readonly stop?: boolean;
  readonly live?: boolean;
  readonly background?: boolean;
  readonly throttle?: boolean;
  readonly disks?: string;
  readonly type?: string;
  readonly label?: readonly string[];
  readonly base?: string;
  readonly track?: boolean;
  readonly encryptTo?: readonly string[];
  readonly passphraseFile?: readonly string[];
  readonly identity?: readonly string[];
}

const STDOUT = 1;

const EXAMPLES: CommandPage["examples"] = [
  ["vhu migrate save machine:/run/web.sock web.vhu", "save a machine, which goes on afterwards"],
  ["vhu migrate save --stop qmp:/run/web.qmp web.vhu", "save a QEMU machine and end it"],
  ["vhu migrate save --live qmp:/run/web.qmp web.vhu", "its pause is as short as can be; the file is larger"],
  ["vhu migrate save --disks include qmp:/run/web.qmp web.vhu", "with copies of its disks in web.vhu.disks"],
  ["vhu migrate save --stop machine:/run/web.sock web.vhu", "save it and end it"],
  ["vhu migrate save --track machine:/run/web.sock mon.vhu", "the first of a series"],
  ["vhu migrate save --track --base mon.vhu machine:/run/web.sock tue.vhu", "what changed since mon.vhu"],
  ["vhu migrate save --encrypt-to age1… machine:/run/web.sock web.vhu", "readable for the owner of that key"],
  ["vhu migrate save machine:/run/web.sock - | ssh host vhu migrate load --trust -", "through a pipe"],
  ["vhu migrate save --type fs unix:/run/virtiofsd.sock fs.vhu", "the state of one back-end"],
];

export function registerMigrateSave(parent: Command): void {
  addCommand(parent, {
    usage: "save <source> <file>",
    description: `save a machine, or one back-end's device state, into a snapshot

SOURCE is qmp:PATH (a running QEMU, by its monitor), machine:PATH (a native machine's control socket) or unix:PATH (a
vhost-user back-end; the connection is a session of its own, and a back-end that serves one front-end only ends with it). The
disks of a QEMU machine are not in the file: where it has some that it can write, use --stop, or say with --disks how they are
kept as they are at the save (docs/qemu.md). FILE may be "-" for stdout. The machine stands still
while it is saved and then goes on, whatever happens to vhu meanwhile; with --live it runs while its memory is copied, again and again
where it changes, and stands still for the rest of it only: tens of milliseconds for most. FILE appears when it is whole and on disk; until then
what was there stays.`,
    examples: EXAMPLES,
    exitStatus: {
      4: "it cannot be saved: the message names each reason, e.g. that memory changes faster than --live can copy it",
      5: "the machine or a back-end is not there, stalled or died",
    },
  })
    .option("--stop", "end the machine once the snapshot is whole")
    .option("--live", "copy memory while the machine runs; it stands still for the last of it only")
    .option(
      "--background",
      "let a QEMU machine run on from the moment that is saved, while its memory is read",
    )
    .option(
      "--throttle",
      "with --live: slow the machine down where it changes memory faster than that is copied",
    )
    .option("--disks <how>", DISKS_OPTION)
    .option("--type <type>", "what kind of device a unix: back-end is, e.g. fs; the protocol does not tell")
    .option("--base <file>", "an earlier snapshot of the machine: store only what changed since; keep both")
    .option(
      "--track",
      "prepare for --base FILE: with a hash of each page, and a dirty log where the machine has one",
    )
    .option("--encrypt-to <recipient>", "encrypt to an age recipient (age1…); may be repeated", collect)
    .option("--passphrase-file <file>", "encrypt with the passphrase in a file; may be repeated", collect)
    .option("--identity <file>", "age keys for an encrypted --base; may be repeated", collect)
    .option("--label <key=value>", "a label for the snapshot's header; may be repeated", collect)
    .action(
      action((context, source: string, file: string, options: SaveOptions) =>
        save(context, source, file, options),
      ),
    );
}

async function save(
  context: CommandContext,
  sourceText: string,
  fileText: string,
  options: SaveOptions,
): Promise<undefined> {
  const source = parseAddressOf(sourceText, "source", ["qmp", "machine", "unix"]);
  const target = parseAddressOf(fileText, "snapshot", ["file", "stdio"]);
  const { output, signal } = context;
  if (options.throttle && !options.live) throw new UsageError("--throttle goes with --live");
  const mode = modeOf(options);
  const labels = parseLabels(options.label ?? []);
  if (target.kind === "stdio") output.reserveStdout();
  const startMs = performance.now();
  using base = options.base === undefined ? undefined : await openBase(options.base, options);
  const to = { recipients: options.encryptTo, passphrases: options.passphraseFile?.map(passphraseIn) };
  const isSecret = to.recipients !== undefined || to.passphrases !== undefined;
  if (base?.isEncrypted && !isSecret) {
    throw new UsageError(
      "the base is encrypted, and what changed since would not be: give --encrypt-to or --passphrase-file, too",
    );
  }
  const fileKey = isSecret ? await newFileKey(to) : undefined;
  using copies = target.kind === "file" ? new DiskCopies(target.path, { isSealed: isSecret }) : undefined;
  using driver = await openDriver(source, {
    type: options.type,
    signal,
    disks: diskCare(options.stop, options.disks),
    copies,
  });
  using progress = output.progress("save");
  const own = new OwnSnapshots();
  if (target.kind === "file") requirePassed([await spaceCheck(driver, target.path)]);
  const start = { kind: "save", source: absoluteAddress(source), target: absoluteAddress(target) } as const;
  const result = await withOperation(start, (operation) =>
    saveMachine(driver, target.kind === "file" ? target.path : STDOUT, {
      writer: { name: "vhu", version },
      after: options.stop ? "stop" : "resume",
      mode,
      throttle: options.throttle,
      labels,
      base,
      track: options.track,
      fileKey,
      own,
      signal,
      operation,
      onProgress: ({ phase, done, total }) => {
        progress.update({ doneBytes: done, totalBytes: total });
        operation.progress({ phase, done, total });
      },
    }),
  );
  copies?.keep();
  report(context, fileText, result, performance.now() - startMs);
  return undefined;
}

function modeOf({ live, background, stop }: SaveOptions): "live" | "background" | "stopped" {
  if (background && (live || stop)) {
    throw new UsageError("--background is for a machine that goes on, and goes without --live and --stop");
  }
  if (background) return "background";
  return live ? "live" : "stopped";
}

function report({ output }: CommandContext, file: string, result: SaveResult, milliseconds: number): void {
  const { root, sizeBytes, stats, manifest, trackObstacle, changesBy } = result;
  const devices = manifest.devices.map(({ name, type, stateBytes }) => ({ name, type, stateBytes }));
  const { totalBytes } = manifest.memory;
  output.summary(
    {
      file,
      root,
      sizeBytes,
      memoryBytes: totalBytes,
      stats,
      devices,
      milliseconds,
      trackObstacle,
      changesBy,
    },
    () => [
      `saved to ${file}: ${formatBytes(sizeBytes)} in ${formatDuration(milliseconds)}`,
      ...(totalBytes > 0 ? [`  memory ${formatBytes(totalBytes)}`] : []),
      ...devices.map((device) => `  ${device.name}: ${formatBytes(device.stateBytes)} of device state`),
      `  root ${root}`,
      ...(changesBy === undefined ? [] : [`  ${changesText(changesBy)}`]),
      ...(trackObstacle === undefined
        ? []
        : [`  no dirty log (${trackObstacle}): a save with --base goes by the hashes of pages`]),
    ],
  );
}

function changesText(changes: ChangesBy): string {
  if (changes.way === "dirty log")
    return `a dirty log said what may have changed since the base: ${formatCount(changes.pageCount, "page")}`;
  const how = changes.way === "page hashes" ? "the hashes of its pages" : "its bytes";
  return `no dirty log since the base: all memory was compared with ${how}`;
}

function openBase(path: string, options: OpeningOptions): Promise<SnapshotReader> {
  return aboutLater(path, () => openWith(path, options));
}

function parseLabels(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf("=");
      if (at < 1) throw new UsageError(`a label is KEY=VALUE, not "${text}"`);
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}
