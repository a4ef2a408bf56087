import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { type BackendCommand, StartedBackends } from "../../migrate/backends/mod.ts";
import type { LoadOptions as MoveOptions } from "../../migrate/load.ts";
import { loadNewQemu } from "../../migrate/load-new-qemu.ts";
import { type LocalPrograms, OwnSnapshots, requireMayStart } from "../../migrate/policy/mod.ts";
import {
  type LoadPlan,
  loadPlan,
  parseQemuMachine,
  QemuLaunch,
  type QemuMachine,
  shareMemory,
} from "../../migrate/qemu/mod.ts";
import type { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import type { CommandContext } from "../command.ts";
import { localPrograms } from "../local-programs.ts";
import { shellWords } from "../output/shell-words.ts";
import { absoluteAddress } from "../with-operation.ts";
import { cloneNotes } from "./clone-notes.ts";
import { type GivenDisk, givenProperties } from "./load-changes.ts";
import { checkCopies, MadeDisks, planDisks, stepCommand } from "./load-disks.ts";
import { programNotes } from "./program-notes.ts";
import { inScope } from "./systemd-scope.ts";

export interface LoadQemuOptions {
  readonly trust?: boolean | undefined;
  readonly socket?: string | undefined;
  readonly qemu?: string | undefined;
  readonly root?: readonly string[] | undefined;
  readonly dryRun?: boolean | undefined;
  readonly force?: boolean | undefined;
  readonly disk?: readonly string[] | undefined;
  readonly set?: readonly string[] | undefined;
  readonly runtimeDir?: string | undefined;
  readonly overlay?: string | undefined;
  /** The snapshot's file, where it is one. */
  readonly file?: string | undefined;
  readonly systemd?: boolean | undefined;
  /** False with --no-backends. */
  readonly backends?: boolean | undefined;
  /** The trusted key that signed the file. */
  readonly signer?: string | undefined;
}

export interface LoadedQemu {
  readonly target: string;
  readonly pid: number;
  readonly log: string;
  readonly backends: StartedBackends["list"];
  readonly notes: readonly string[];
}

/**
 * Starts a QEMU and its back-ends for a snapshot and loads it; undefined after a dry run. What this user's vhu recorded may
 * name any path; a file from elsewhere only those below --root.
 */
export async function loadIntoNewQemu(
  { output, signal }: CommandContext,
  reader: SnapshotReader,
  options: LoadQemuOptions,
  moveOptions: MoveOptions,
): Promise<LoadedQemu | undefined> {
  const own = new OwnSnapshots();
  const roots = own.has(reader.root) ? ["/"] : (options.root ?? []);
  const machine = parseQemuMachine(reader.manifest.machine);
  const disks = planDisks(machine, options.file, roots, options);
  const programs = localPrograms();
  const plan = planFor(machine, roots, programs, disks.changes, options);
  const notes = [
    ...plan.notes,
    ...(await programNotes(machine, plan, programs)),
    ...disks.notes,
    ...cloneNotes(machine, options),
  ];
  const { socketPath } = plan.qemu;
  await checkCopies(disks, moveOptions, options.dryRun);
  if (options.dryRun) {
    const { args, regions } = shareMemory(plan.qemu.args, reader.memoryMap);
    const qemu = [plan.qemu.program, ...args, ...QemuLaunch.argumentsOf(socketPath, regions.length)];
    const backends = plan.backends.map(({ command }) => [...command]);
    const before = disks.steps.map(stepCommand);
    if (output.json) output.document({ disks: before, backends, command: qemu, notes });
    else output.lines([...before, ...backends, qemu].map(shellWords));
    return undefined;
  }
  requireMayStart(reader.root, { own, trust: options.trust ?? false, signer: options.signer });
  if (options.runtimeDir !== undefined) mkdirSync(options.runtimeDir, { recursive: true, mode: 0o700 });
  const { operation } = moveOptions;
  operation?.phase("starting", {
    runsAt: absoluteAddress({ kind: "qmp", path: socketPath }),
    sockets: [
      resolve(socketPath),
      ...plan.backends.flatMap(({ connects, socket, others = [] }) =>
        connects ? [] : [socket, ...others.map((other) => other.socket)],
      ),
    ],
  });
  using made = await MadeDisks.make(disks.steps, roots, signal);
  await using backends = await StartedBackends.start(plan.backends, {
    signal,
    onStarted: (name, pid) => operation?.started(name, pid),
  });
  // The disks were looked at above.
  const qemuOptions = { ...moveOptions, signal, force: true, lifeLines: backends.lifeLines };
  const launch = await loadNewQemu(reader, plan.qemu, qemuOptions).catch((error: unknown) => {
    // What a back-end says about its end tells more than that QEMU has lost it.
    backends.requireAlive();
    throw error;
  });
  backends.release();
  made.keep();
  const { pid, logPath: log } = launch;
  return { target: `qmp:${socketPath}`, pid, log, backends: backends.list, notes };
}

function planFor(
  machine: QemuMachine,
  roots: readonly string[],
  programs: LocalPrograms,
  disks: readonly GivenDisk[],
  options: LoadQemuOptions,
): LoadPlan {
  const plan = loadPlan(machine, {
    roots,
    programs,
    program: options.qemu,
    socketPath: options.socket === undefined ? undefined : resolve(options.socket),
    runtimeFolder: options.runtimeDir === undefined ? undefined : resolve(options.runtimeDir),
    disks,
    properties: givenProperties(options.set ?? []),
    withoutBackends: options.backends === false,
  });
  if (!options.systemd) return plan;
  const backends = plan.backends.map(
    (backend): BackendCommand => ({
      ...backend,
      command: inScope(backend.command, `${machine.name}-${backend.chardev}`),
    }),
  );
  const [program = "", ...args] = inScope([plan.qemu.program, ...plan.qemu.args], machine.name);
  return { ...plan, backends, qemu: { ...plan.qemu, program, args } };
}
