import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { SyscallError, UsageError } from "../../src/errors.ts";
import type { MoveOptions } from "../driver.ts";
import {
  extractRegion,
  extractStream,
  RecordType,
  type SnapshotReader,
  type StreamEntry,
} from "../snapshot/mod.ts";
import {
  DESCRIPTION_FILE,
  DIRECTORY_FORMAT,
  DIRECTORY_VERSION,
  type DirectoryDescription,
  fileNames,
} from "./description.ts";

/**
 * A snapshot as a directory of plain files (docs/snapshot-format.md, "As a directory"): full, unpacked, decrypted. It has
 * its name once it is whole.
 *
 * @throws UsageError where something of that name is there, FormatError, SyscallError
 */
export async function exportDirectory(
  reader: SnapshotReader,
  path: string,
  { signal, onProgress }: MoveOptions = {},
): Promise<void> {
  const temporary = join(dirname(path), `.${crypto.randomUUID()}.tmp`);
  attempt("mkdir", path, () => mkdirSync(temporary, { mode: 0o700 }));
  try {
    const total = reader.memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    let done = 0;
    for (const { id, sizeBytes } of reader.memoryMap) {
      await extractRegion(reader, id, join(temporary, fileNames.region(id)), { signal });
      done += sizeBytes;
      onProgress?.({ phase: "memory", done, total });
    }
    for (const stream of reader.streams)
      await extractStream(reader, stream, join(temporary, nameOf(stream)), { signal });
    const text = `${JSON.stringify(describe(reader), undefined, 2)}\n`;
    attempt("open", path, () => writeFileSync(join(temporary, DESCRIPTION_FILE), text, { mode: 0o600 }));
    signal?.throwIfAborted();
    publish(temporary, path);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

function describe({ header, manifest, memoryMap }: SnapshotReader): DirectoryDescription {
  // The manifest of an encrypted file has the header as well.
  const { header: _, ...plain } = manifest;
  return {
    format: DIRECTORY_FORMAT,
    version: DIRECTORY_VERSION,
    header,
    manifest: plain as typeof manifest,
    memoryMap: { regions: memoryMap },
  };
}

function nameOf({ type, streamId }: StreamEntry): string {
  if (type === RecordType.deviceState) return fileNames.device(streamId);
  return type === RecordType.qemuStream ? fileNames.qemuStream : fileNames.machineState;
}

/** Renaming over a directory works only where that is empty. */
function publish(temporary: string, path: string): void {
  try {
    renameSync(temporary, path);
  } catch (error) {
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    if (["ENOTEMPTY", "EEXIST", "ENOTDIR"].includes(code))
      throw new UsageError(`${path} is there already: choose another name, or remove it`);
    throw new SyscallError("rename", code, path);
  }
}

function attempt(call: string, path: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    throw new SyscallError(call, (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
