import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { FormatError, SyscallError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_MANIFEST_BYTES, MAX_STATE_SECTION_BYTES, STATE_CHUNK_BYTES } from "../../src/limits.ts";
import { O, openFile } from "../../src/sys/mod.ts";
import type { MoveOptions } from "../driver.ts";
import { saveMemory } from "../ram/mod.ts";
import {
  headerFieldsOf,
  parseHeader,
  parseManifest,
  parseMemoryMap,
  type SnapshotDevice,
  type SnapshotRegion,
  type SnapshotSummary,
  SnapshotWriter,
  type WriterOptions,
} from "../snapshot/mod.ts";
import { DESCRIPTION_FILE, DIRECTORY_FORMAT, DIRECTORY_VERSION, fileNames } from "./description.ts";

export interface ImportDirectoryOptions
  extends MoveOptions,
    Pick<WriterOptions, "fileKey" | "level" | "formatVersion"> {}

/**
 * Makes a snapshot of a directory that `exportDirectory` wrote and somebody may have edited: what the JSON says is checked
 * as that of a file is, and against the other files.
 *
 * @param target A path, or the number of an fd.
 * @throws FormatError that names the field or the file, SyscallError
 */
export async function importDirectory(
  folder: string,
  target: string | number,
  options: ImportDirectoryOptions = {},
): Promise<SnapshotSummary> {
  const { header, manifest, regions } = readDescription(join(folder, DESCRIPTION_FILE));
  for (const region of regions) expectSize(join(folder, fileNames.region(region.id)), region);
  const fields = headerFieldsOf(header);
  using writer =
    typeof target === "string"
      ? SnapshotWriter.toFile(target, fields, options)
      : SnapshotWriter.toFd(target, fields, options);
  writer.writeMemoryMap(regions);
  for (const { id, sizeBytes } of regions) {
    using file = openFile(join(folder, fileNames.region(id)), O.RDONLY);
    await saveMemory(writer, id, file, sizeBytes, options);
  }
  const devices = manifest.devices.map((device) => ({
    ...device,
    stateBytes: copyDevice(folder, writer, device),
  }));
  copyIfThere(join(folder, fileNames.qemuStream), () => writer.writeQemuStream());
  copyMachineState(join(folder, fileNames.machineState), writer);
  writer.writeManifest({ ...manifest, devices });
  return writer.finish();
}

/** Whether a path is such a directory. */
export function isSnapshotDirectory(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory() && existsSync(join(path, DESCRIPTION_FILE));
}

function readDescription(path: string) {
  if (sizeOf(path) > 2 * MAX_SNAPSHOT_MANIFEST_BYTES) throw new FormatError("it is too large", path);
  const json = parseJson(readFileSync(path), path);
  if (json.format !== DIRECTORY_FORMAT || json.version !== DIRECTORY_VERSION) {
    const message = `it is not of the format ${DIRECTORY_FORMAT}, version ${DIRECTORY_VERSION}`;
    throw new FormatError(message, path);
  }
  return {
    header: parseHeader(json.header),
    manifest: parseManifest(json.manifest),
    regions: parseMemoryMap(json.memoryMap),
  };
}

function parseJson(bytes: Uint8Array, path: string): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (typeof json === "object" && json !== null) return json as Record<string, unknown>;
  } catch (cause) {
    throw new FormatError(`it is not JSON: ${(cause as Error).message}`, path, -1, { cause });
  }
  throw new FormatError("it is no JSON object", path);
}

function expectSize(path: string, { name, sizeBytes }: SnapshotRegion): void {
  const found = sizeOf(path);
  if (found === sizeBytes) return;
  throw new FormatError(
    `the region ${JSON.stringify(name)} has ${sizeBytes} bytes, this file has ${found}`,
    path,
  );
}

/** The size of its state, which may be another one now; 0 without one. */
function copyDevice(folder: string, writer: SnapshotWriter, { id }: SnapshotDevice): number {
  return copyIfThere(join(folder, fileNames.device(id)), () => writer.writeDeviceState(id)) ?? 0;
}

function copyMachineState(path: string, writer: SnapshotWriter): void {
  if (!existsSync(path)) return;
  if (sizeOf(path) > MAX_STATE_SECTION_BYTES)
    throw new FormatError("a machine state is not that large", path);
  writer.writeMachineState(readFileSync(path));
}

function copyIfThere(
  path: string,
  open: () => ReturnType<SnapshotWriter["writeDeviceState"]>,
): number | undefined {
  if (!existsSync(path)) return undefined;
  const fd = openSync(path, "r");
  try {
    const target = open();
    const chunk = new Uint8Array(STATE_CHUNK_BYTES);
    for (let count = readSync(fd, chunk); count > 0; count = readSync(fd, chunk)) {
      target.write(chunk.subarray(0, count));
    }
    return target.finish().sizeBytes;
  } finally {
    closeSync(fd);
  }
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch (error) {
    throw new SyscallError("stat", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
