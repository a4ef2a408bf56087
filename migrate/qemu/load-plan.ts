import { isAbsolute, join, resolve } from "node:path";
import { CompatibilityError } from "../../src/errors.ts";
import { type BackendCommand, type BackendRecord, isWaiting, requireSocketPath } from "../backends/mod.ts";
import {
  backendArguments,
  type LocalPrograms,
  recordedRole,
  requireAllowedChain,
  storageDaemonDisks,
} from "../policy/mod.ts";
import { changeArguments, type DiskChange, type PropertyChange } from "./change-arguments.ts";
import { type QemuCommand, qemuCommand } from "./qemu-command.ts";
import { parseQemuMachine, type QemuMachine } from "./qemu-machine.ts";
import { withHotPlug } from "./with-hot-plug.ts";

export interface LoadPlanOptions {
  /** Folders that recorded paths may lie in; "/" for what this user's own vhu recorded. */
  readonly roots: readonly string[];
  readonly programs: LocalPrograms;
  /** The QEMU to start. */
  readonly program?: string | undefined;
  /** Where its monitor is to be. */
  readonly socketPath?: string | undefined;
  /** A folder for all sockets and logs, instead of where they were. */
  readonly runtimeFolder?: string | undefined;
  /** Other files for disks; where the disk is a back-end's, by its chardev. */
  readonly disks?: readonly (DiskChange & { readonly backend?: string | undefined })[] | undefined;
  /** `--set`: of QEMU's arguments, or of a back-end's options. */
  readonly properties?: readonly PropertyChange[] | undefined;
  /** The user starts the back-ends. */
  readonly withoutBackends?: boolean | undefined;
  /** Images that are not there yet, and that vhu will make. */
  readonly made?: ReadonlySet<string> | undefined;
  /** A move: the machine is no other generation of itself. */
  readonly keepsGeneration?: boolean | undefined;
}

/** What will be started, and what is found already. */
export interface LoadPlan {
  readonly qemu: QemuCommand;
  readonly backends: readonly BackendCommand[];
  readonly notes: readonly string[];
}

/**
 * How a recorded machine is started here: its back-ends, then QEMU. Nothing is started or changed.
 * @throws CompatibilityError for what policy refuses, or what is not recorded; UsageError, StateError
 */
export function loadPlan(json: unknown, options: LoadPlanOptions): LoadPlan {
  const machine = parseQemuMachine(json);
  const { workingFolder } = machine;
  const moved = new Map<string, string>();
  const relocate = (path: string, name: string) => {
    const { runtimeFolder } = options;
    const absolute = resolve(workingFolder ?? "/", path);
    if (runtimeFolder === undefined) return isAbsolute(path) || workingFolder === undefined ? path : absolute;
    const to = requireSocketPath(join(runtimeFolder, name));
    moved.set(absolute, to);
    return to;
  };
  const own = new Set((machine.backends ?? []).map(({ chardev }) => chardev));
  const ofQemu = (options.properties ?? []).filter(({ id, key }) => !own.has(id) || key === "path");
  const recorded = changeArguments(withHotPlug(withoutMonitors(machine.commandLine ?? []), machine), {
    disks: [
      ...currentFiles(machine),
      ...(options.disks ?? []).filter(({ backend }) => backend === undefined),
    ],
    properties: ofQemu,
    relocate: (path, chardev) => relocate(path, chardev),
    workingFolder,
    keepsGeneration: options.keepsGeneration,
  });
  const given = givenPaths(options, [...moved.values()]);
  const qemu = qemuCommand(
    {
      ...machine,
      // It has all changes.
      ...{ added: [], removed: [], removedParts: [] },
      ...(machine.commandLine === undefined ? {} : { commandLine: recorded }),
    },
    {
      roots: options.roots,
      given,
      made: options.made,
      workingFolder,
      program: options.program,
      socketPath: options.socketPath ?? monitorOf(machine, options),
    },
  );
  const notes: string[] = [];
  const backends = options.withoutBackends
    ? []
    : sharedProcesses(machine.backends ?? []).flatMap(({ backend, others }) => {
        const place = (path: string) => {
          const recordedPath = resolve(workingFolder ?? "/", path);
          return moved.get(recordedPath) ?? recordedPath;
        };
        const socket = place(backend.socket);
        if (!backend.connects && isWaiting(socket, backend.chardev)) {
          notes.push(`the ${backend.type} back-end at ${socket} listens already and is used as it is`);
          return [];
        }
        const also = others.map((other) => ({ chardev: other.chardev, socket: place(other.socket) }));
        return [backendCommand(backend, socket, also, { ...options, given, relocate, moved })];
      });
  return { qemu, backends, notes };
}

/** Devices that are served by one process: a qemu-storage-daemon has as many exports as it likes. */
function sharedProcesses(
  backends: readonly BackendRecord[],
): { readonly backend: BackendRecord; readonly others: BackendRecord[] }[] {
  const found: { readonly backend: BackendRecord; readonly others: BackendRecord[] }[] = [];
  for (const backend of backends) {
    const same = found.find(({ backend: { pid } }) => pid !== undefined && pid === backend.pid);
    if (same === undefined) found.push({ backend, others: [] });
    else same.others.push(backend);
  }
  return found;
}

/** The program's own monitors are not made again: `-qmp` and the like are dropped by policy, their chardevs here. */
function withoutMonitors(recorded: readonly string[]): string[] {
  const monitors = new Set(
    recorded.flatMap((word, at) => {
      const chardev = /(?:^|,)chardev=([^,]+)/.exec(word)?.[1];
      return recorded[at - 1] === "-mon" && chardev !== undefined ? [chardev] : [];
    }),
  );
  const kept: string[] = [];
  for (let at = 0; at < recorded.length; at += 1) {
    const id = /(?:^|,)id=([^,]+)/.exec(recorded[at + 1] ?? "")?.[1];
    if (recorded[at] === "-chardev" && id !== undefined && monitors.has(id)) at += 1;
    else kept.push(recorded[at] as string);
  }
  return kept;
}

/** A disk that has got overlays since QEMU was started is on the command line by an earlier file of its chain. */
function currentFiles({ disks }: QemuMachine): DiskChange[] {
  return disks.flatMap(({ files = [], path, format, backend }) =>
    backend === undefined && files.length > 1 ? [{ from: files, path, format }] : [],
  );
}

function monitorOf(machine: QemuMachine, { runtimeFolder, roots }: LoadPlanOptions): string | undefined {
  if (runtimeFolder !== undefined) return requireSocketPath(join(runtimeFolder, "qmp"));
  return roots.includes("/") ? machine.monitor : undefined;
}

function givenPaths({ disks = [], properties = [] }: LoadPlanOptions, moved: readonly string[]): Set<string> {
  return new Set([...disks.map(({ path }) => path), ...properties.map(({ value }) => value), ...moved]);
}

interface BackendPlanOptions extends LoadPlanOptions {
  readonly given: Set<string>;
  readonly moved: ReadonlyMap<string, string>;
  readonly relocate: (path: string, name: string) => string;
}

function backendCommand(
  { chardev, type, connects, commandLine, workingFolder, socket: recordedSocket }: BackendRecord,
  socket: string,
  others: NonNullable<BackendCommand["others"]>,
  { roots, programs, disks = [], properties = [], given, moved, relocate }: BackendPlanOptions,
): BackendCommand {
  if (commandLine === undefined) {
    throw new CompatibilityError(
      `which program served ${chardev} (${type}) is not in the snapshot: start it yourself at ${socket}, where it is then used`,
    );
  }
  const own = new Set([chardev, ...others.map((other) => other.chardev)]);
  const ofBackend = disks.filter(({ backend }) => backend !== undefined && own.has(backend));
  const recorded = recordedRole(commandLine)?.role;
  const changes = [
    ...(recorded === "vhu" ? ofBackend.map(({ path }) => ({ key: "image", value: path })) : []),
    ...properties.filter(({ id, key }) => own.has(id) && key !== "path"),
  ];
  const words =
    recorded === "qemu-storage-daemon"
      ? changeArguments(commandLine, { disks: ofBackend, workingFolder })
      : commandLine;
  let count = 0;
  const place = (path: string) => {
    if (path === resolve(workingFolder ?? "/", recordedSocket)) return socket;
    const known = moved.get(path);
    if (known !== undefined) return known;
    const to = relocate(path, `${chardev}-${++count}`);
    given.add(to);
    return to;
  };
  const { role, args } = backendArguments(withChanges(words, changes), {
    roots,
    given: new Set([...given, socket]),
    workingFolder,
    relocate: place,
  });
  if (role === "qemu-storage-daemon") {
    for (const disk of storageDaemonDisks(args)) requireAllowedChain(disk, { roots, given });
  }
  return {
    chardev,
    type,
    socket,
    connects: connects ?? false,
    others,
    role,
    staysOn: role === "qemu-storage-daemon",
    command: [...programs.commandOf(role), ...args],
  };
}

/** Options of a back-end with other values; a new one is added. An image has two names. */
function withChanges(
  commandLine: readonly string[],
  changes: readonly { readonly key: string; readonly value: string }[],
): string[] {
  const words = [...commandLine];
  for (const { key, value } of changes) {
    const names = key === "image" ? ["--image", "--blk-file"] : [`--${key}`];
    const at = words.findIndex((word) => names.includes(word.split("=")[0] as string));
    if (at < 0) words.push(`--${key}`, value);
    else if ((words[at] as string).includes("=")) words[at] = `${names[0]}=${value}`;
    else words[at + 1] = value;
  }
  return words;
}
