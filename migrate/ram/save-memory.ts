import type { PageSet } from "../../src/memory/mod.ts";
import { dataRanges, type Fd, Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";
import { PieceWriter } from "./piece-writer.ts";

export interface SaveMemoryOptions extends MoveOptions {
  /** The only pages that may differ from the sink's base, by a dirty log. */
  readonly changed?: PageSet | undefined;
  /** The memory changes meanwhile: what goes to the sink is copied first. What has changed is given in a later pass. */
  readonly isRunning?: boolean | undefined;
}

/** Gives a region's memory to `sink`: what its memfd holds, and its holes without touching them. */
export async function saveMemory(
  sink: VmSink,
  regionId: number,
  fd: Fd,
  sizeBytes: number,
  options: SaveMemoryOptions = {},
): Promise<void> {
  using mapping = Mapping.ofFd(fd, { sizeBytes, readOnly: true });
  using _ = options.isRunning ? undefined : sink.lookUpPages(mapping);
  const pieces = new PieceWriter(sink, regionId, mapping, options);
  try {
    if (options.changed === undefined) await writeAll(sink, regionId, fd, pieces);
    else await writeChanged(sink, regionId, options.changed, pieces);
  } finally {
    // Also when something failed: the sink may still read from the mapping.
    await pieces.settled();
  }
  await pieces.all();
  options.signal?.throwIfAborted();
  options.onProgress?.({ phase: "memory", done: sizeBytes, total: sizeBytes });
}

async function writeAll(sink: VmSink, regionId: number, fd: Fd, pieces: PieceWriter): Promise<void> {
  const { sizeBytes } = pieces;
  let position = 0;
  for (const range of dataRanges(fd, sizeBytes)) {
    if (range.offset > position) sink.writeHole(regionId, position, range.offset - position);
    position = range.offset + range.sizeBytes;
    await pieces.write(range.offset, position);
  }
  if (position < sizeBytes) sink.writeHole(regionId, position, sizeBytes - position);
}

/** What lies between two changes and is shorter than this is given with them, marked as unchanged. */
const LEAST_GAP_BYTES = 1 << 20;

async function writeChanged(
  sink: VmSink,
  regionId: number,
  changed: PageSet,
  pieces: PieceWriter,
): Promise<void> {
  const { sizeBytes } = pieces;
  let position = 0;
  let open: { start: number; end: number } | undefined;
  const close = async () => {
    if (open === undefined) return;
    if (open.start > position) sink.writeUnchanged(regionId, position, open.start - position);
    await pieces.write(open.start, open.end);
    position = open.end;
  };
  for (const run of changed.runs()) {
    const end = Math.min(run.offset + run.sizeBytes, sizeBytes);
    if (open !== undefined && run.offset - open.end < LEAST_GAP_BYTES) open.end = end;
    else {
      await close();
      open = { start: run.offset, end };
    }
  }
  await close();
  if (position < sizeBytes) sink.writeUnchanged(regionId, position, sizeBytes - position);
}
