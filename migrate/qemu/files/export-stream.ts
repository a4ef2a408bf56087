import { CompatibilityError, FormatError } from "../../../src/errors.ts";
import { eventLoopTurn } from "../../../src/sys/mod.ts";
import type { MoveOptions } from "../../driver.ts";
import { OutputFile, type SnapshotReader, writeAll } from "../../snapshot/mod.ts";
import { parseQemuMachine } from "../qemu-machine.ts";
import { readRest } from "../read-rest.ts";
import { regionsOf } from "../stream-regions.ts";
import { rebuildStream } from "../stream-writer.ts";
import { encodeLibvirtHead } from "./libvirt-header.ts";
import { MappedRamWriter } from "./mapped-ram-writer.ts";
import { withoutReturnPath } from "./outgoing-rest.ts";

/** What a snapshot of a QEMU machine can be written as, for programs that are not vhu. */
export type QemuFileFormat = "qemu" | "qemu-mapped-ram" | "libvirt";
export const qemuFileFormats: readonly QemuFileFormat[] = ["qemu", "qemu-mapped-ram", "libvirt"];

/** What is written between two looks at Ctrl-C and the progress bar. */
const TURN_BYTES = 16 << 20;

/**
 * Writes a snapshot as a file that QEMU (`-incoming file:`) or libvirt (`virsh restore`) loads. Every byte is checked before
 * it is written; the file appears under its name when it is whole.
 *
 * @throws CompatibilityError where the snapshot is of another machine, or has no XML for libvirt; FormatError, SyscallError
 */
export async function exportQemuFile(
  reader: SnapshotReader,
  path: string,
  format: QemuFileFormat,
  options: MoveOptions = {},
): Promise<void> {
  const machine = parseQemuMachine(reader.manifest.machine);
  const stream = reader.qemuStream();
  if (stream === undefined) throw new FormatError("the snapshot has no QEMU stream", "qemuStream");
  const parsed = withoutReturnPath(readRest(stream));
  const regions = regionsOf(reader, parsed.blocks);
  if (format === "libvirt" && machine.libvirt === undefined) {
    throw new CompatibilityError(
      "the snapshot has no XML for libvirt, which only one that was made of a virsh save file has: write it as qemu",
    );
  }
  using file = new OutputFile(path);
  if (format === "qemu-mapped-ram") {
    await new MappedRamWriter(file.fd, path).write(parsed, reader, regions, options);
  } else {
    if (format === "libvirt" && machine.libvirt !== undefined) {
      const { xml, cookie } = machine.libvirt;
      const wasRunning = machine.runState === "running";
      writeAll(file.fd, encodeLibvirtHead({ xml, cookie, wasRunning }), path);
    }
    const pieces = rebuildStream(parsed, (block) => reader.memory(regions[block] as number));
    await writeStream(pieces, file.fd, path, reader.manifest.memory.totalBytes, options);
  }
  options.signal?.throwIfAborted();
  file.publish();
}

async function writeStream(
  pieces: Iterable<Uint8Array>,
  fd: number,
  path: string,
  total: number,
  { signal, onProgress }: MoveOptions,
): Promise<void> {
  let done = 0;
  let sinceTurn = 0;
  for (const piece of pieces) {
    writeAll(fd, piece, path);
    done += piece.length;
    sinceTurn += piece.length;
    if (sinceTurn < TURN_BYTES) continue;
    sinceTurn = 0;
    onProgress?.({ phase: "memory", done: Math.min(done, total), total });
    await eventLoopTurn();
    signal?.throwIfAborted();
  }
}
