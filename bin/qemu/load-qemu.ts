import type { LoadOptions as MoveOptions } from "../../migrate/mod.ts";
import { loadMachine, OwnSnapshots, QemuLaunch, qemuCommand, requireMayStart } from "../../migrate/mod.ts";
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
  const { program, args, socketPath } = qemuCommand(reader.manifest.machine, {
    roots,
    program: options.qemu,
    socketPath: options.socket,
  });
  if (options.dryRun) {
    const command = [program, ...args, ...QemuLaunch.argumentsOf(socketPath)];
    if (output.json) output.document({ command });
    else output.line(command.map(quoted).join(" "));
    return undefined;
  }
  requireMayStart(reader.root, { own, trust: options.trust ?? false, signer: options.signer });
  using launch = QemuLaunch.start(program, args, socketPath);
  using driver = await launch.connect({ signal, force: options.force });
  try {
    await loadMachine(driver, reader, moveOptions);
  } catch (error) {
    throw launch.explain(error);
  }
  launch.release();
  return { target: `qmp:${socketPath}`, pid: launch.pid, log: launch.logPath };
}

/** As a shell reads it; control characters as $'…' shows them. */
function quoted(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  if (!/[\u0000-\u001f\u007f-\u009f]/.test(word)) return `'${word.replaceAll("'", "'\\''")}'`;
  return `$${JSON.stringify(word).replaceAll("'", "\\'").replace(/^"|"$/g, "'")}`;
}
