import { MAX_WINDOW_BYTES } from "../../src/limits.ts";
import { dataRanges, eventLoopTurn, type Fd, Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";

/** One write to the sink: large enough to keep the compression Workers busy (25 ms), small enough for progress and Ctrl-C. */
const PIECE_BYTES = 64 << 20;

/** Gives a region's memory to `sink`: what its memfd holds, and its holes without touching them. The memory stands still. */
export async function saveMemory(
  sink: VmSink,
  regionId: number,
  fd: Fd,
  sizeBytes: number,
  options: MoveOptions = {},
): Promise<void> {
  using mapping = Mapping.ofFd(fd, { sizeBytes, readOnly: true });
  using _ = sink.lookUpPages(sizeBytes);
  let position = 0;
  for (const range of dataRanges(fd, sizeBytes)) {
    if (range.offset > position) sink.writeHole(regionId, position, range.offset - position);
    position = range.offset + range.sizeBytes;
    await writeRange(sink, regionId, mapping, range.offset, position, options);
  }
  if (position < sizeBytes) sink.writeHole(regionId, position, sizeBytes - position);
  options.onProgress?.({ phase: "memory", done: sizeBytes, total: sizeBytes });
}

async function writeRange(
  sink: VmSink,
  regionId: number,
  mapping: Mapping,
  from: number,
  to: number,
  options: MoveOptions,
): Promise<void> {
  for (let offset = from; offset < to; ) {
    const count = Math.min(to - offset, PIECE_BYTES, MAX_WINDOW_BYTES);
    const window = mapping.window(offset, count);
    sink.writeMemory(regionId, offset, new Uint8Array(window));
    mapping.closeWindow(window);
    offset += count;
    options.onProgress?.({ phase: "memory", done: offset, total: mapping.sizeBytes });
    await eventLoopTurn();
    options.signal?.throwIfAborted();
  }
}
