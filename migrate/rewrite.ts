import { eventLoopTurn } from "../src/sys/mod.ts";
import type { MoveOptions } from "./driver.ts";
import { copyMemory } from "./ram/mod.ts";
import {
  headerFieldsOf,
  RecordType,
  type SnapshotReader,
  type SnapshotSummary,
  SnapshotWriter,
  type StreamEntry,
  type WriterOptions,
} from "./snapshot/mod.ts";

export interface RewriteOptions
  extends MoveOptions,
    Pick<WriterOptions, "base" | "fileKey" | "level" | "formatVersion"> {
  /** Devices whose state is another one now, by their ids. */
  readonly deviceStates?: ReadonlyMap<number, Uint8Array> | undefined;
}

/**
 * A new file with the content of a snapshot: full, whatever it was based on, and written as this version writes. It has
 * an id of its own.
 *
 * @param target A path, or the number of an fd.
 */
export async function rewriteSnapshot(
  reader: SnapshotReader,
  target: string | number,
  options: RewriteOptions = {},
): Promise<SnapshotSummary> {
  const header = headerFieldsOf(reader.header);
  // Who has paid for the hashes of pages keeps them, but for a version that has none.
  const pageHashes = options.formatVersion !== 0 && hasPageHashes(reader);
  const writing = { ...options, pageHashes };
  using writer =
    typeof target === "string"
      ? SnapshotWriter.toFile(target, header, writing)
      : SnapshotWriter.toFd(target, header, writing);
  writer.writeMemoryMap(reader.memoryMap);
  await copyMemory(reader, writer, options);
  for (const stream of reader.streams) await copyStream(reader, writer, stream, options);
  const devices = reader.manifest.devices.map((device) => {
    const state = options.deviceStates?.get(device.id);
    return state === undefined ? device : { ...device, stateBytes: state.length };
  });
  writer.writeManifest({ ...reader.manifest, devices });
  return writer.finish();
}

function hasPageHashes(reader: SnapshotReader): boolean {
  return reader.records().some(({ type }) => type === RecordType.pageHashes);
}

async function copyStream(
  reader: SnapshotReader,
  writer: SnapshotWriter,
  stream: StreamEntry,
  { deviceStates, signal }: RewriteOptions,
): Promise<void> {
  const replaced = stream.type === RecordType.deviceState ? deviceStates?.get(stream.streamId) : undefined;
  const content = replaced === undefined ? reader.readStream(stream) : [replaced];
  if (stream.type === RecordType.machineState) {
    writer.writeMachineState(Buffer.concat([...content]));
    return;
  }
  const isDevice = stream.type === RecordType.deviceState;
  const target = isDevice ? writer.writeDeviceState(stream.streamId) : writer.writeQemuStream();
  for (const chunk of content) {
    // A loop without a turn never hears of a signal.
    await eventLoopTurn();
    signal?.throwIfAborted();
    target.write(chunk);
  }
  target.finish();
}
