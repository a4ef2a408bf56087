import { dataRanges, type Fd, Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";

/** One write to the sink: enough that the compression Workers are never without work, small enough for progress and Ctrl-C. */
const PIECE_BYTES = 16 << 20;
const PIECES_IN_FLIGHT = 2;

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
  const pieces = new Pieces(sink, regionId, mapping, options);
  try {
    let position = 0;
    for (const range of dataRanges(fd, sizeBytes)) {
      if (range.offset > position) sink.writeHole(regionId, position, range.offset - position);
      position = range.offset + range.sizeBytes;
      await pieces.write(range.offset, position);
    }
    if (position < sizeBytes) sink.writeHole(regionId, position, sizeBytes - position);
  } finally {
    // Also when something failed: the sink may still read from the mapping.
    await pieces.settled();
  }
  await pieces.all();
  options.onProgress?.({ phase: "memory", done: sizeBytes, total: sizeBytes });
}

/** Writes a mapping piece by piece, some at a time. */
class Pieces {
  readonly #flights: Promise<void>[] = [];

  constructor(
    readonly sink: VmSink,
    readonly regionId: number,
    readonly mapping: Mapping,
    readonly options: MoveOptions,
  ) {}

  async write(from: number, to: number): Promise<void> {
    for (let offset = from; offset < to; ) {
      const sizeBytes = Math.min(to - offset, PIECE_BYTES);
      const flight = this.#writePiece(offset, sizeBytes);
      // Its fault is met where it is waited for.
      flight.catch(() => {});
      this.#flights.push(flight);
      if (this.#flights.length >= PIECES_IN_FLIGHT) await this.#flights.shift();
      offset += sizeBytes;
      this.options.signal?.throwIfAborted();
    }
  }

  async all(): Promise<void> {
    await Promise.all(this.#flights);
  }

  async settled(): Promise<void> {
    await Promise.allSettled(this.#flights);
  }

  async #writePiece(offset: number, sizeBytes: number): Promise<void> {
    const window = this.mapping.window(offset, sizeBytes);
    try {
      await this.sink.writeMemory(this.regionId, offset, new Uint8Array(window));
    } finally {
      this.mapping.closeWindow(window);
    }
    this.options.onProgress?.({ phase: "memory", done: offset + sizeBytes, total: this.mapping.sizeBytes });
  }
}
