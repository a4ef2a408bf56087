import { basename, resolve } from "node:path";
import { CompatibilityError } from "../../src/errors.ts";
import { type QemuArgumentPolicy, qemuArguments, qemuDisks, requireAllowedChain } from "../policy/mod.ts";
import { parseQemuMachine } from "./qemu-machine.ts";
import { withHotPlug } from "./with-hot-plug.ts";

export interface QemuCommandOptions extends QemuArgumentPolicy {
  /** The program to run; else the recorded one's name is looked for in PATH, never its path. */
  readonly program?: string | undefined;
  /** Where the monitor will be; else where the recorded one was, if that is in an allowed folder. */
  readonly socketPath?: string | undefined;
}

export interface QemuCommand {
  readonly program: string;
  readonly args: readonly string[];
  readonly socketPath: string;
}

/**
 * How to start a QEMU that takes a recorded machine.
 * @throws CompatibilityError when the command line is not recorded, or not of what may run; FormatError for a damaged disk image
 */
export function qemuCommand(machine: unknown, options: QemuCommandOptions): QemuCommand {
  const parsed = parseQemuMachine(machine);
  const { commandLine, executable } = parsed;
  if (commandLine === undefined || executable === undefined) {
    throw new CompatibilityError(
      "QEMU's command line is not in the snapshot: start QEMU with -incoming defer, and load into qmp:PATH",
    );
  }
  const recorded = withHotPlug(commandLine.slice(1), parsed);
  const args = qemuArguments(recorded, options);
  for (const disk of qemuDisks(args)) requireAllowedChain(disk, options);
  return {
    program: options.program === undefined ? programOf(executable) : absoluteProgram(options.program),
    args,
    socketPath: options.socketPath ?? socketOf(recorded, options.roots),
  };
}

/** It is started elsewhere than here. */
function absoluteProgram(program: string): string {
  return program.includes("/") ? resolve(program) : program;
}

function programOf(executable: string): string {
  const name = basename(executable).replace(/ \(deleted\)$/, "");
  const found = /^(?:qemu-system-[a-z0-9_]+|qemu-kvm|kvm)$/.test(name) ? Bun.which(name) : null;
  if (found !== null) return found;
  throw new CompatibilityError(`${name} is not installed here: install it, or give --qemu PATH`);
}

function socketOf(recorded: readonly string[], roots: readonly string[]): string {
  const value = recorded[recorded.indexOf("-qmp") + 1] ?? "";
  const path = /^unix:(\/[^,]*)/.exec(value)?.[1];
  if (path !== undefined && roots.includes("/")) return path;
  throw new CompatibilityError("where QEMU's monitor is to be is not known: give --socket PATH");
}
