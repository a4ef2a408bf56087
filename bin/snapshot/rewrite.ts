import { type Command, InvalidArgumentError } from "commander";
import { OwnSnapshots, rewriteSnapshot } from "../../migrate/mod.ts";
import { type NewFileKey, newFileKey, type SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { aboutLater } from "../about.ts";
import { parseAddressOf } from "../address.ts";
import { collect } from "../collect.ts";
import type { CommandContext } from "../command.ts";
import { type OpeningOptions, openWith, passphraseIn } from "../credentials.ts";
import { formatBytes } from "../output/format.ts";
import type { Output } from "../output/output.ts";
import { wholeNumber } from "../whole-number.ts";

const STDOUT = 1;
/** zstd's levels above need more memory than a snapshot's frames are worth. */
const MAX_LEVEL = 19;

/** How a snapshot is written. */
export interface WritingOptions {
  readonly encryptTo?: readonly string[];
  readonly encryptPassphraseFile?: readonly string[];
  readonly level?: number;
  readonly decrypt?: boolean;
}

/** The options of every command that writes a snapshot anew. */
export function addWritingOptions(command: Command): Command {
  return command
    .option("--level <number>", "how hard zstd tries, 1 to 19; 1 unless told", levelOf)
    .option("--encrypt-to <recipient>", "encrypt to an age recipient (age1…); may be repeated", collect)
    .option(
      "--encrypt-passphrase-file <file>",
      "encrypt with the passphrase in a file; may be repeated",
      collect,
    )
    .option("--decrypt", "of an encrypted snapshot, write one that is not");
}

function levelOf(text: string): number {
  const level = wholeNumber(1)(text);
  if (level > MAX_LEVEL) throw new InvalidArgumentError(`The highest level is ${MAX_LEVEL}.`);
  return level;
}

/** What a writer takes of the options. */
export async function writerOptions({ level, ...options }: WritingOptions) {
  return { level, fileKey: await keyOf(options) };
}

/** @throws UsageError for an encrypted snapshot, where nobody said whether what is written is to be encrypted, too */
function requireSaid(reader: SnapshotReader, options: WritingOptions): void {
  const isToBe = (options.encryptTo ?? options.encryptPassphraseFile) !== undefined;
  if (isToBe && options.decrypt) throw new UsageError("--decrypt goes without encryption");
  if (isToBe || options.decrypt || !isAnyEncrypted(reader)) return;
  throw new UsageError(
    "the snapshot is encrypted, and what is written would not be: give --encrypt-to or --encrypt-passphrase-file, or --decrypt",
  );
}

/** The file, or one that it is based on: all of it is written. */
function isAnyEncrypted(reader: SnapshotReader): boolean {
  for (let file: SnapshotReader | undefined = reader; file !== undefined; file = file.openParent()) {
    if (file.isEncrypted) return true;
  }
  return false;
}

/** Undefined where nobody asked for encryption. */
export async function keyOf(options: WritingOptions): Promise<NewFileKey | undefined> {
  const to = {
    recipients: options.encryptTo ?? [],
    passphrases: (options.encryptPassphraseFile ?? []).map(passphraseIn),
  };
  return to.recipients.length + to.passphrases.length === 0 ? undefined : await newFileKey(to);
}

/** @param states Of devices whose state is another one now. */
export async function rewrite(
  context: CommandContext,
  file: string,
  targetText: string,
  options: OpeningOptions &
    WritingOptions & {
      readonly formatVersion?: number | undefined;
      readonly label?: string;
      readonly what?: string;
    },
  states?: (reader: SnapshotReader) => ReadonlyMap<number, Uint8Array>,
): Promise<undefined> {
  const { output } = context;
  const target = targetOf(output, targetText);
  const writing = { ...(await writerOptions(options)), formatVersion: options.formatVersion };
  using reader = await aboutLater(file, () => openWith(file, options));
  requireSaid(reader, options);
  const deviceStates = states?.(reader);
  using progress = output.progress(options.label ?? "write");
  const { root, sizeBytes } = await rewriteSnapshot(reader, target, {
    ...writing,
    signal: signalFor(context, target),
    deviceStates,
    onProgress: ({ done, total }) => progress.update({ doneBytes: done, totalBytes: total }),
  });
  // Whoever changed a state wrote that file; a converted one is as trusted as it was.
  const own = new OwnSnapshots();
  if (own.has(reader.root)) own.add(root);
  summarize(output, targetText, root, sizeBytes, options.what);
  return undefined;
}

/**
 * Signals are caught only where there is something to take back: once the source is open, and not for a pipe. Whoever waits for
 * a pipe in a system call would not hear of them, and without a handler they end the process.
 */
export function signalFor(context: CommandContext, target: string | number): AbortSignal | undefined {
  return typeof target === "string" ? context.signal : undefined;
}

/** A path, or stdout, which from now on is for the data. */
export function targetOf(output: Output, text: string): string | number {
  const target = parseAddressOf(text, "target", ["file", "stdio"]);
  if (target.kind === "file") return target.path;
  output.reserveStdout();
  return STDOUT;
}

/** What was written, for people and programs. */
export function summarize(output: Output, file: string, root: string, sizeBytes: number, what = ""): void {
  output.summary({ file, root, sizeBytes }, () => [
    `${targetName(file)}: ${formatBytes(sizeBytes)}${what === "" ? "" : `, ${what}`}`,
    `  root ${root}`,
  ]);
}

/** What a target is called in a sentence. */
export function targetName(text: string): string {
  return text === "-" ? "stdout" : text;
}
