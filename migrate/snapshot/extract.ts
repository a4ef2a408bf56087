import { ftruncateSync } from "node:fs";
import { UsageError } from "../../src/errors.ts";
import { coreFileHead } from "./core-file.ts";
import { systemCall, writeAll } from "./file-io.ts";
import type { StreamEntry } from "./index-table.ts";
import type { LoadProgress } from "./load-pool.ts";
import { OutputFile } from "./output-file.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";

/** One region's bytes, as a file with holes. @throws UsageError, FormatError, SyscallError */
export async function extractRegion(
  reader: SnapshotReader,
  regionId: number,
  path: string,
  options: LoadProgress = {},
): Promise<void> {
  const region = reader.memoryMap.find(({ id }) => id === regionId);
  if (region === undefined) throw new UsageError(`the snapshot has no memory region ${regionId}`);
  using file = new OutputFile(path);
  systemCall("ftruncate", path, () => ftruncateSync(file.fd, region.sizeBytes));
  await reader.loadRegion(regionId, file.fd, options);
  file.publish();
}

/** All memory as an ELF core file, by guest-physical addresses: gdb and crash read it. @throws FormatError, SyscallError */
export async function extractCore(
  reader: SnapshotReader,
  path: string,
  options: LoadProgress = {},
): Promise<void> {
  const { head, offsets } = coreFileHead(reader.memoryMap, reader.header.host.architecture);
  using file = new OutputFile(path);
  writeAll(file.fd, head, path);
  const totalBytes = reader.memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, head.length);
  systemCall("ftruncate", path, () => ftruncateSync(file.fd, totalBytes));
  for (const [regionId, targetOffset] of offsets) {
    await reader.loadRegion(regionId, file.fd, { ...options, targetOffset });
  }
  file.publish();
}

/** One device's state, verbatim. @throws UsageError, FormatError, SyscallError */
export function extractDevice(reader: SnapshotReader, deviceId: number, path: string): void {
  writeChunks(reader.deviceState(deviceId), path);
}

/** Any of the streams, as it was saved. @throws FormatError, SyscallError */
export function extractStream(reader: SnapshotReader, stream: StreamEntry, path: string): void {
  writeChunks(reader.readStream(stream), path);
}

function writeChunks(chunks: Iterable<Uint8Array>, path: string): void {
  using file = new OutputFile(path);
  for (const chunk of chunks) writeAll(file.fd, chunk, path);
  file.publish();
}
