import { existsSync, readFileSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_MANIFEST_BYTES, MAX_STATE_SECTION_BYTES, STATE_CHUNK_BYTES } from "../../src/limits.ts";
import { eventLoopTurn } from "../../src/sys/mod.ts";
import type { MoveOptions } from "../driver.ts";
import { saveMemory } from "../ram/mod.ts";
import {
  expectModest,
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
import { type DirectoryPart, openPart, openPartIfThere } from "./open-part.ts";

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
  using parts = new DisposableStack();
  const opened = regions.map((region) => {
    const path = join(folder, fileNames.region(region.id));
    const part = parts.use(openPart(path));
    expectSize(path, part, region);
    return { region, part };
  });
  const fields = headerFieldsOf(header);
  using writer =
    typeof target === "string"
      ? SnapshotWriter.toFile(target, fields, options)
      : SnapshotWriter.toFd(target, fields, options);
  writer.writeMemoryMap(regions);
  for (const { region, part } of opened) {
    await saveMemory(writer, region.id, part.file, region.sizeBytes, options);
  }
  const devices: SnapshotDevice[] = [];
  for (const device of manifest.devices) {
    devices.push({ ...device, stateBytes: await copyDevice(folder, writer, device, options) });
  }
  await copyIfThere(join(folder, fileNames.qemuStream), () => writer.writeQemuStream(), options);
  copyMachineState(join(folder, fileNames.machineState), writer);
  writer.writeManifest({ ...manifest, devices });
  return writer.finish();
}

/** Whether a path is such a directory. */
export function isSnapshotDirectory(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory() && existsSync(join(path, DESCRIPTION_FILE));
}

function readDescription(path: string) {
  using part = openPart(path);
  if (part.sizeBytes > 2 * MAX_SNAPSHOT_MANIFEST_BYTES) throw new FormatError("it is too large", path);
  const bytes = readFileSync(part.file.number);
  expectModest(bytes, "description", -1);
  const json = parseJson(bytes, path);
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

function expectSize(
  path: string,
  { sizeBytes: found }: DirectoryPart,
  { name, sizeBytes }: SnapshotRegion,
): void {
  if (found === sizeBytes) return;
  throw new FormatError(
    `the region ${JSON.stringify(name)} has ${sizeBytes} bytes, this file has ${found}`,
    path,
  );
}

/** The size of its state, which may be another one now; 0 without one. */
async function copyDevice(
  folder: string,
  writer: SnapshotWriter,
  { id }: SnapshotDevice,
  options: MoveOptions,
): Promise<number> {
  const path = join(folder, fileNames.device(id));
  return (await copyIfThere(path, () => writer.writeDeviceState(id), options)) ?? 0;
}

function copyMachineState(path: string, writer: SnapshotWriter): void {
  using part = openPartIfThere(path);
  if (part === undefined) return;
  if (part.sizeBytes > MAX_STATE_SECTION_BYTES)
    throw new FormatError("a machine state is not that large", path);
  writer.writeMachineState(readFileSync(part.file.number));
}

async function copyIfThere(
  path: string,
  open: () => ReturnType<SnapshotWriter["writeDeviceState"]>,
  { signal }: MoveOptions,
): Promise<number | undefined> {
  using part = openPartIfThere(path);
  if (part === undefined) return undefined;
  const target = open();
  const chunk = new Uint8Array(STATE_CHUNK_BYTES);
  for (let count = readSync(part.file.number, chunk); count > 0; count = readSync(part.file.number, chunk)) {
    target.write(chunk.subarray(0, count));
    // A loop without a turn never hears of a signal.
    await eventLoopTurn();
    signal?.throwIfAborted();
  }
  return target.finish().sizeBytes;
}
