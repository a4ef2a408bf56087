import { resolve } from "node:path";
import type { Command } from "commander";
import { loadMachine } from "../../migrate/load.ts";
import type { Operation, OperationProgress } from "../../migrate/operations/mod.ts";
import { OwnSnapshots, requireMayStart } from "../../migrate/policy/mod.ts";
import { isQemuMachine } from "../../migrate/qemu/mod.ts";
import type { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { CompatibilityError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { type Address, parseAddressOf } from "../address.ts";
import { collect } from "../collect.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addOpeningOptions, type OpeningOptions, openWith } from "../credentials.ts";
import { openDriver } from "../open-driver.ts";
import { formatBytes, formatDuration } from "../output/format.ts";
import { type LoadedQemu, type LoadQemuOptions, loadIntoNewQemu } from "../qemu/load-qemu.ts";
import { trustedSigner } from "../trusted-signer.ts";
import { vhuCommand } from "../vhu-command.ts";
import { absoluteAddress, withOperation } from "../with-operation.ts";

interface LoadOptions extends OpeningOptions, LoadQemuOptions {
  readonly trust?: boolean;
  readonly paused?: boolean;
  readonly socket?: string;
  readonly type?: string;
  readonly force?: boolean;
  /** Not an option: the log's. */
  readonly operation?: Operation;
}

export function registerMigrateLoad(parent: Command): void {
  const command = addCommand(parent, {
    usage: "load <file> [target]",
    description: `load a snapshot: the machine goes on where it was saved

Without TARGET new processes are started: a native machine, or the snapshot's vhost-user back-ends and then its QEMU; each in a
session of its own, with a log beside its socket. That is done only for a snapshot that you wrote on this host, one that is
signed by a key you trust, or with --trust: a snapshot names files and sockets that the machine uses. What runs is this host's
choice: programs are found by their role, and their arguments are built anew from an allow-list (--dry-run shows them). A
back-end that listens already is used as it is. Back-ends end with their QEMU.
TARGET is machine:PATH (a machine that waits: vhu machine run --incoming), qmp:PATH (a QEMU that was started with the saved
machine's command line and -incoming defer) or unix:PATH (a back-end that takes the state of the snapshot's only device). FILE
may be "-" for stdin. Nothing runs before every byte was checked; a load that fails leaves nothing behind.`,
    examples: [
      ["vhu migrate load web.vhu", "bring the machine back, running"],
      ["vhu migrate load --dry-run web.vhu", "the commands that would be started"],
      [
        "vhu migrate load --disk disk0=/srv/web.qcow2 --set c1.shared-dir=/srv/other web.vhu",
        "with another disk, and another folder for the back-end of chardev c1",
      ],
      [
        "vhu migrate load --overlay /srv/two --runtime-dir /run/two web.vhu",
        "a second VM of the same snapshot, which leaves its disks as they are",
      ],
      ["vhu migrate load web.vhu machine:/run/new.sock", "into a machine that waits"],
      ["vhu migrate load web.vhu qmp:/run/new.qmp", "into a QEMU that waits with -incoming defer"],
      ["vhu migrate load fs.vhu unix:/run/virtiofsd.sock", "give one back-end its state"],
    ],
    exitStatus: {
      3: "the file is no snapshot, or is damaged; nothing was started",
      4: "it does not fit here, or is not trusted",
      5: "a back-end is not there, refused its state or died",
    },
  });
  addOpeningOptions(command)
    .option("--trust", "start programs for a snapshot from somewhere else")
    .option("--paused", "leave the machine prepared, not running")
    .option("--socket <path>", "control socket of the new machine, instead of the saved one")
    .option("--force", "load although a disk of the QEMU machine has changed since the save")
    .option("--type <type>", "what kind of device a unix: back-end is");
  addQemuOptions(command).action(
    action((context, file: string, target: string | undefined, options: LoadOptions) =>
      load(context, file, target, options),
    ),
  );
}

/** For what is started for a QEMU snapshot. */
function addQemuOptions(command: Command): Command {
  return command
    .option("--qemu <program>", "the QEMU to start, instead of the installed one of the saved name")
    .option(
      "--root <folder>",
      "where paths of a QEMU snapshot from elsewhere may lie; may be repeated",
      collect,
    )
    .option("--dry-run", "print the commands that would be started: back-ends, then QEMU")
    .option(
      "--disk <name=path>",
      "another file for a disk of the QEMU machine, NAME=PATH[,format=qcow2]; may be repeated",
      collect,
    )
    .option(
      "--set <id.key=value>",
      "another value for a property of QEMU's arguments, or of a back-end's (by its chardev); may be repeated",
      collect,
    )
    .option(
      "--overlay <folder>",
      "leave the disks as they are: what the VM writes goes to overlays or copies in this folder",
    )
    .option("--runtime-dir <folder>", "where all sockets and logs of the QEMU machine are to be")
    .option("--no-backends", "start no vhost-user back-ends: they listen already, or will")
    .option("--systemd", "put QEMU and each back-end into a systemd scope of its own");
}

async function load(
  context: CommandContext,
  file: string,
  target: string | undefined,
  options: LoadOptions,
): Promise<undefined> {
  const startMs = performance.now();
  using reader = await aboutLater(file, () => openWith(file, options));
  const isFile = parseAddressOf(file, "snapshot", ["file", "stdio"]).kind === "file";
  const located = { ...options, file: isFile ? file : undefined };
  if (options.dryRun) {
    await loadIntoNewMachine(context, reader, located, startMs);
    return undefined;
  }
  const source = absoluteAddress(parseAddressOf(file, "snapshot", ["file", "stdio"]));
  const to = target === undefined ? undefined : parseAddressOf(target, "target", ["qmp", "machine", "unix"]);
  const start = {
    kind: "load",
    source,
    target: to === undefined ? "a new process" : absoluteAddress(to),
  } as const;
  await withOperation(start, async (operation) => {
    const given = { ...located, operation };
    if (to === undefined) await loadIntoNewMachine(context, reader, given, startMs);
    else await loadInto(context, reader, to, given, startMs);
  });
  return undefined;
}

async function loadInto(
  context: CommandContext,
  reader: SnapshotReader,
  target: Extract<Address, { kind: "qmp" | "machine" | "unix" }>,
  options: LoadOptions,
  startMs: number,
) {
  const { type, force } = options;
  using driver = await openDriver(target, { type, force, signal: context.signal });
  await loadMachine(driver, reader, moveOptions(context, options));
  report(context, reader, { target: `${target.kind}:${target.path}` }, startMs);
}

async function loadIntoNewMachine(
  context: CommandContext,
  reader: SnapshotReader,
  options: LoadOptions,
  startMs: number,
) {
  const { machine } = reader.manifest;
  if (machine === undefined) {
    throw new CompatibilityError(
      "the snapshot holds one back-end's device state and no machine: give unix:PATH as the target",
    );
  }
  const signer = trustedSigner(reader);
  if (isQemuMachine(machine)) {
    const given = { ...options, signer };
    const loaded = await loadIntoNewQemu(context, reader, given, moveOptions(context, options));
    if (loaded !== undefined) report(context, reader, loaded, startMs);
    return;
  }
  requireMayStart(reader.root, { own: new OwnSnapshots(), trust: options.trust ?? false, signer });
  const { parseMachineConfig } = await import("../../migrate/machine-file/mod.ts");
  const { MachineProcess } = await import("../../migrate/machine/mod.ts");
  const socket = options.socket ?? parseMachineConfig(machine, "manifest").socket;
  const runsAt = absoluteAddress({ kind: "machine", path: socket });
  options.operation?.phase("starting", { runsAt, sockets: [resolve(socket)] });
  using process = MachineProcess.start(
    vhuCommand,
    ["--incoming", "--end-with-loader", "--socket", socket],
    socket,
  );
  options.operation?.started("the machine", process.pid);
  using driver = await process.connect(context.signal);
  await driver.prepareIncoming({ machine });
  await loadMachine(driver, reader, moveOptions(context, options));
  process.release();
  report(context, reader, { target: `machine:${socket}`, pid: process.pid, log: process.logPath }, startMs);
}

function moveOptions({ output, signal }: CommandContext, { paused, operation }: LoadOptions) {
  const progress = output.progress("load");
  return {
    signal,
    paused,
    operation,
    onProgress: (moved: OperationProgress) => {
      progress.update({ doneBytes: moved.done, totalBytes: moved.total });
      operation?.progress(moved);
    },
  };
}

interface Loaded {
  readonly target: string;
  readonly pid?: number;
  readonly log?: string;
  readonly backends?: LoadedQemu["backends"];
  readonly notes?: readonly string[];
}

function report(
  { output }: CommandContext,
  { root, manifest }: SnapshotReader,
  loaded: Loaded,
  startMs: number,
): void {
  const milliseconds = performance.now() - startMs;
  const memoryBytes = manifest.memory.totalBytes;
  output.summary({ ...loaded, root, memoryBytes, devices: manifest.devices.length, milliseconds }, () => [
    `loaded into ${loaded.target} in ${formatDuration(milliseconds)}`,
    ...(memoryBytes > 0
      ? [
          `  memory ${formatBytes(memoryBytes)}${isQemuMachine(manifest.machine) ? "" : `, ${manifest.devices.length} devices`}`,
        ]
      : []),
    ...(loaded.pid === undefined ? [] : [`  process ${loaded.pid}, log ${loaded.log}`]),
    ...(loaded.backends ?? []).map(
      ({ type, chardev, pid, log }) => `  ${type} back-end of ${chardev}: process ${pid}, log ${log}`,
    ),
    ...(loaded.notes ?? []).map((note) => `  ${note}`),
  ]);
}
