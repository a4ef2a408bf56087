import type { LoadOptions as MoveOptions } from "../../migrate/mod.ts";
import {
  loadNewQemu,
  OwnSnapshots,
  QemuLaunch,
  qemuCommand,
  requireMayStart,
  shareMemory,
} from "../../migrate/mod.ts";
import type { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import type { CommandContext } from "../command.ts";

export interface LoadQemuOptions {
  readonly trust?: boolean | undefined;
  readonly socket?: string | undefined;
  readonly qemu?: string | undefined;
  readonly root?: readonly string[] | undefined;
  readonly dryRun?: boolean | undefined;
  readonly force?: boolean | undefined;
  /** The trusted key that signed the file. */
  readonly signer?: string | undefined;
}

export interface LoadedQemu {
  readonly target: string;
  readonly pid: number;
  readonly log: string;
}

/**
 * Starts a QEMU for a snapshot and loads it; undefined after a dry run. What this user's vhu recorded may name any path;
 * a file from elsewhere only those below --root.
 */
export async function loadIntoNewQemu(
  { output, signal }: CommandContext,
  reader: SnapshotReader,
  options: LoadQemuOptions,
  moveOptions: MoveOptions,
): Promise<LoadedQemu | undefined> {
  const own = new OwnSnapshots();
  const roots = own.has(reader.root) ? ["/"] : (options.root ?? []);
  const command = qemuCommand(reader.manifest.machine, {
    roots,
    program: options.qemu,
    socketPath: options.socket,
  });
  if (options.dryRun) {
    const { args, regions } = shareMemory(command.args, reader.memoryMap);
    const added = QemuLaunch.argumentsOf(command.socketPath, regions.length);
    const words = [command.program, ...args, ...added];
    if (output.json) output.document({ command: words });
    else output.line(words.map(quoted).join(" "));
    return undefined;
  }
  requireMayStart(reader.root, { own, trust: options.trust ?? false, signer: options.signer });
  const launch = await loadNewQemu(reader, command, { ...moveOptions, signal, force: options.force });
  return { target: `qmp:${command.socketPath}`, pid: launch.pid, log: launch.logPath };
}

/** As a shell reads it; control characters as $'…' shows them. */
function quoted(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  if (!/[\u0000-\u001f\u007f-\u009f]/.test(word)) return `'${word.replaceAll("'", "'\\''")}'`;
  return `$${JSON.stringify(word).replaceAll("'", "\\'").replace(/^"|"$/g, "'")}`;
}
