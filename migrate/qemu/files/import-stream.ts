import { basename } from "node:path";
import { eventLoopTurn } from "../../../src/sys/mod.ts";
import type { MoveOptions } from "../../driver.ts";
import { type SnapshotSummary, SnapshotWriter, type WriterOptions } from "../../snapshot/mod.ts";
import { PageCollector } from "../page-collector.ts";
import type { QemuMachine } from "../qemu-machine.ts";
import { StreamParser } from "../stream-parser.ts";
import { StreamFile } from "./stream-file.ts";
import { machineOfStream } from "./stream-machine.ts";

export interface ImportOptions extends MoveOptions, Pick<WriterOptions, "fileKey"> {
  readonly writer: { readonly name: string; readonly version: string };
}

export interface ImportResult extends SnapshotSummary {
  readonly machine: QemuMachine;
}

const REST_PIECE_BYTES = 1 << 20;
/** What is read between two looks at Ctrl-C and the progress bar. */
const TURN_BYTES = 16 << 20;

/**
 * Makes a snapshot of a file with QEMU's migration stream: of `migrate file:`, of `exec:cat`, of mapped-ram, or of `virsh save`.
 * What is not memory is kept byte for byte; of mapped-ram, without the mark that says so.
 *
 * @throws FormatError, CompatibilityError for a kind that cannot be taken apart, SyscallError; there is no file then
 */
export async function importQemuFile(
  path: string,
  target: string | number,
  options: ImportOptions,
): Promise<ImportResult> {
  using file = StreamFile.open(path);
  const { writer: by, fileKey } = options;
  const name = file.libvirt === undefined ? basename(path) : "libvirt";
  const header = { writer: by, machine: { name }, labels: {} };
  using writer =
    typeof target === "string"
      ? SnapshotWriter.toFile(target, header, { fileKey })
      : SnapshotWriter.toFd(target, header, { fileKey });
  const collector = new PageCollector(writer);
  const parser = new StreamParser(collector);
  let sinceTurn = 0;
  for await (const piece of file.pieces()) {
    parser.push(piece);
    await collector.ready();
    sinceTurn += piece.length;
    if (sinceTurn < TURN_BYTES) continue;
    sinceTurn = 0;
    options.onProgress?.({ phase: "read", done: file.doneBytes, total: file.sizeBytes });
    await eventLoopTurn();
    options.signal?.throwIfAborted();
  }
  const parsed = parser.finish();
  await collector.finish();
  const stream = writer.writeQemuStream();
  for (let at = 0; at < parsed.rest.length; at += REST_PIECE_BYTES) {
    stream.write(parsed.rest.subarray(at, at + REST_PIECE_BYTES));
  }
  stream.finish();
  const machine = machineOfStream(parsed, { name, layout: file.layout, libvirt: file.libvirt });
  writer.writeManifest({ machine, devices: [], memory: { totalBytes: collector.totalBytes } });
  return { ...writer.finish(), machine };
}
