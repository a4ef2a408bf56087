import type { PageSet } from "../../src/memory/mod.ts";
import type { Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";
import { PieceWriter } from "./piece-writer.ts";

export interface SavePagesOptions extends MoveOptions {
  /** The memory changes meanwhile: what goes to the sink is copied first. */
  readonly isRunning?: boolean | undefined;
}

/** Gives some pages of a region's memory to `sink`: a later pass over memory that was given before. */
export async function savePages(
  sink: VmSink,
  regionId: number,
  mapping: Mapping,
  pages: PageSet,
  options: SavePagesOptions = {},
): Promise<void> {
  const { onProgress: _, ...rest } = options;
  const pieces = new PieceWriter(sink, regionId, mapping, rest);
  try {
    for (const { offset, sizeBytes } of pages.runs()) await pieces.write(offset, offset + sizeBytes);
  } finally {
    await pieces.settled();
  }
  await pieces.all();
  options.signal?.throwIfAborted();
}
