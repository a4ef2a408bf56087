import { ftruncateSync } from "node:fs";
import { SyscallError, UsageError } from "../../src/errors.ts";
import { eventLoopTurn } from "../../src/sys/mod.ts";
import { type CoreLayout, coreFileHead, plainCoreLayout } from "./core-file.ts";
import { systemCall, writeAll } from "./file-io.ts";
import type { StreamEntry } from "./index-table.ts";
import type { LoadProgress } from "./load-pool.ts";
import { OutputFile } from "./output-file.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";

/** Pages of zeros for a pipe. */
const ZEROS = new Uint8Array(1024 * 1024);

/** One region's bytes, as a file with holes, or into a pipe. @throws UsageError, FormatError, SyscallError */
export async function extractRegion(
  reader: SnapshotReader,
  regionId: number,
  target: string | number,
  options: LoadProgress = {},
): Promise<void> {
  const region = reader.memoryMap.find(({ id }) => id === regionId);
  if (region === undefined) throw new UsageError(`the snapshot has no memory region ${regionId}`);
  if (typeof target === "number") {
    await writeRegion(reader, regionId, target, options);
    return;
  }
  using file = new OutputFile(target);
  systemCall("ftruncate", target, () => ftruncateSync(file.fd, region.sizeBytes));
  await aboutTarget(target, reader.loadRegion(regionId, file.fd, options));
  file.publish();
}

/**
 * Memory as an ELF core file, by guest-physical addresses: gdb and crash read it.
 *
 * @param layout Where the memory is, and notes with the registers; else each region is where the snapshot says.
 * @throws FormatError, SyscallError
 */
export async function extractCore(
  reader: SnapshotReader,
  target: string | number,
  { layout, ...options }: LoadProgress & { readonly layout?: CoreLayout | undefined } = {},
): Promise<void> {
  const { architecture } = reader.header.host;
  const chosen = layout ?? plainCoreLayout(reader.memoryMap, architecture);
  const { head, offsets } = coreFileHead(chosen, architecture);
  if (typeof target === "number") {
    writeAll(target, head, PIPE);
    let doneBytes = 0;
    for (const id of offsets.keys()) {
      doneBytes += await writeRegion(reader, id, target, {
        ...options,
        onProgress: onProgressFrom(options, doneBytes),
      });
    }
    return;
  }
  using file = new OutputFile(target);
  writeAll(file.fd, head, target);
  const totalBytes = chosen.segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, head.length);
  systemCall("ftruncate", target, () => ftruncateSync(file.fd, totalBytes));
  let doneBytes = 0;
  for (const [regionId, targetOffset] of offsets) {
    const onProgress = onProgressFrom(options, doneBytes);
    await aboutTarget(target, reader.loadRegion(regionId, file.fd, { ...options, targetOffset, onProgress }));
    doneBytes += reader.memoryMap.find(({ id }) => id === regionId)?.sizeBytes ?? 0;
  }
  file.publish();
}

/** One device's state, verbatim. @throws UsageError, FormatError, SyscallError */
export async function extractDevice(
  reader: SnapshotReader,
  deviceId: number,
  target: string | number,
  options: Pick<LoadProgress, "signal"> = {},
): Promise<void> {
  await writeChunks(reader.deviceState(deviceId), target, options);
}

/** Any of the streams, as it was saved. @throws FormatError, SyscallError */
export async function extractStream(
  reader: SnapshotReader,
  stream: StreamEntry,
  target: string | number,
  options: Pick<LoadProgress, "signal"> = {},
): Promise<void> {
  await writeChunks(reader.readStream(stream), target, options);
}

const PIPE = "the pipe";

/** In order: a pipe takes nothing else. @returns the bytes that were written */
async function writeRegion(
  reader: SnapshotReader,
  regionId: number,
  fd: number,
  { signal, onProgress }: LoadProgress,
): Promise<number> {
  let doneBytes = 0;
  for (const piece of reader.memory(regionId)) {
    await untilNow(signal);
    if ("bytes" in piece) writeAll(fd, piece.bytes, PIPE);
    else {
      for (let left = piece.sizeBytes; left > 0; left -= ZEROS.length) {
        writeAll(fd, ZEROS.subarray(0, Math.min(left, ZEROS.length)), PIPE);
      }
    }
    doneBytes += piece.sizeBytes;
    onProgress?.(doneBytes);
  }
  return doneBytes;
}

/** A loop without a turn never hears of a signal. */
async function untilNow(signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return;
  await eventLoopTurn();
  signal.throwIfAborted();
}

function onProgressFrom({ onProgress }: LoadProgress, before: number): LoadProgress["onProgress"] {
  return onProgress && ((doneBytes) => onProgress(before + doneBytes));
}

/** What is loaded knows its file as memory: here it has a name. */
async function aboutTarget(target: string, work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (error instanceof SyscallError && error.details.path === "the memory")
      throw new SyscallError(error.call, error.errno, target, { path: target });
    throw error;
  }
}

async function writeChunks(
  chunks: Iterable<Uint8Array>,
  target: string | number,
  { signal }: Pick<LoadProgress, "signal">,
): Promise<void> {
  using file = typeof target === "string" ? new OutputFile(target) : undefined;
  const [fd, what] = typeof target === "string" ? [file?.fd ?? -1, target] : [target, PIPE];
  for (const chunk of chunks) {
    await untilNow(signal);
    writeAll(fd, chunk, what);
  }
  file?.publish();
}
