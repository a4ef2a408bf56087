import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { SnapshotReader, unlockSnapshot } from "../migrate/snapshot/mod.ts";
import { SyscallError, UsageError } from "../src/errors.ts";
import { parseAddressOf } from "./address.ts";
import { collect } from "./collect.ts";

const STDIN = 0;

/** How a snapshot on a command line is opened. */
export interface OpeningOptions {
  readonly parent?: readonly string[];
  readonly identity?: readonly string[];
  readonly passphraseFile?: readonly string[];
}

/** The options of every command that reads what is in a snapshot. */
export function addOpeningOptions(command: Command): Command {
  return command
    .option("--parent <file>", "where a file is that the snapshot is based on; may be repeated", collect)
    .option(
      "--identity <file>",
      "age keys (AGE-SECRET-KEY-1…) for an encrypted snapshot; may be repeated",
      collect,
    )
    .option("--passphrase-file <file>", "a passphrase for an encrypted snapshot; may be repeated", collect);
}

/**
 * The snapshot that FILE means, unlocked; "-" is read to its end first.
 *
 * @throws UsageError, FormatError, CompatibilityError where no key fits
 */
export function openWith(text: string, options: OpeningOptions): Promise<SnapshotReader> | SnapshotReader {
  const source = parseAddressOf(text, "snapshot", ["file", "stdio"]);
  return open(source.kind === "file" ? source.path : STDIN, options);
}

/** As `openWith`, for a file by its path. */
export function openPath(path: string, options: OpeningOptions): Promise<SnapshotReader> | SnapshotReader {
  return open(path, options);
}

function open(source: string | number, options: OpeningOptions): Promise<SnapshotReader> | SnapshotReader {
  const opening = { parents: options.parent ?? [] };
  const credentials = credentialsOf(options);
  if (credentials.identities.length + credentials.passphrases.length > 0) {
    return unlockSnapshot(source, credentials, opening);
  }
  return typeof source === "string"
    ? SnapshotReader.open(source, opening)
    : SnapshotReader.fromFd(source, opening);
}

/** Secrets come from files: a command line can be read by everybody. */
export function credentialsOf({ identity = [], passphraseFile = [] }: OpeningOptions): {
  readonly identities: readonly string[];
  readonly passphrases: readonly string[];
} {
  const identities = identity.flatMap((path) =>
    linesOf(path).filter((line) => line !== "" && !line.startsWith("#")),
  );
  return { identities, passphrases: passphraseFile.map(passphraseIn) };
}

/** Its first line. */
export function passphraseIn(path: string): string {
  const [passphrase = ""] = linesOf(path);
  if (passphrase === "") throw new UsageError(`${path} holds no passphrase in its first line`);
  return passphrase;
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split(/\r?\n/);
  } catch (error) {
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
