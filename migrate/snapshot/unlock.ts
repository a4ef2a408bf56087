import { CompatibilityError } from "../../src/errors.ts";
import { FileInput, type SpoolOptions } from "./file-input.ts";
import { type Credentials, unwrapFileKey, type WrappedKey } from "./file-keys.ts";
import { findParent } from "./find-parent.ts";
import { type OpenOptions, SnapshotReader } from "./snapshot-reader.ts";
import { readKeys } from "./structure.ts";

/** What an encrypted file shows without its key. */
export interface LockedSnapshot {
  readonly keys: readonly WrappedKey[];
  readonly sizeBytes: number;
}

/**
 * Opens a snapshot that may be encrypted, and the files that it is based on if it is: each has a key of its own.
 *
 * @param source A path, or the number of a pipe's fd.
 * @throws CompatibilityError where no credential fits, FormatError, SyscallError
 */
export async function unlockSnapshot(
  source: string | number,
  credentials: Credentials,
  options: OpenOptions & SpoolOptions = {},
): Promise<SnapshotReader> {
  const input = typeof source === "string" ? FileInput.open(source) : FileInput.spool(source, options);
  const reader = SnapshotReader.over(input, await withKey(input, credentials, options));
  try {
    await unlockParents(reader, credentials, options);
    return reader;
  } catch (error) {
    reader[Symbol.dispose]();
    throw error;
  }
}

/** Undefined for a file that is not encrypted. @throws FormatError, CompatibilityError, SyscallError */
export function lockedSnapshot(path: string): LockedSnapshot | undefined {
  using input = FileInput.open(path);
  const keys = readKeys(input)?.keys;
  return keys === undefined ? undefined : { keys, sizeBytes: input.sizeBytes };
}

async function unlockParents(
  child: SnapshotReader,
  credentials: Credentials,
  options: OpenOptions,
): Promise<void> {
  for (let reader = child; reader.parent !== undefined; ) {
    const path = parentOf(reader, options);
    if (path === undefined) return;
    using input = FileInput.open(path);
    reader = reader.adoptParent(path, await withKey(input, credentials, options));
  }
}

/** Undefined where it is missing: not every look needs it, and whoever does looks again. */
function parentOf({ parent, path }: SnapshotReader, { parents = [] }: OpenOptions): string | undefined {
  try {
    return parent && findParent(parent, path, parents);
  } catch (error) {
    if (error instanceof CompatibilityError && error.code === "PARENT_MISSING") return undefined;
    throw error;
  }
}

async function withKey(
  input: FileInput,
  credentials: Credentials,
  options: OpenOptions,
): Promise<OpenOptions> {
  try {
    const keys = readKeys(input);
    return keys === undefined
      ? options
      : { ...options, fileKey: await unwrapFileKey(keys.keys, credentials) };
  } catch (error) {
    input[Symbol.dispose]();
    throw error;
  }
}
