import { PAGE_BYTES, type PageSet } from "../../src/memory/mod.ts";
import type { Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";

/** One write to the sink: enough that the compression Workers are never without work, small enough for progress and Ctrl-C. */
const PIECE_BYTES = 16 << 20;
const PIECES_IN_FLIGHT = 2;

/** Writes ranges of a mapping to a sink, some pieces at a time. */
export class PieceWriter {
  readonly #sink: VmSink;
  readonly #regionId: number;
  readonly #mapping: Mapping;
  readonly #options: MoveOptions & { readonly changed?: PageSet | undefined };
  readonly #flights: Promise<void>[] = [];

  /** @param options With `changed`, the pages that are not in it are as in the sink's base. */
  constructor(
    sink: VmSink,
    regionId: number,
    mapping: Mapping,
    options: MoveOptions & { readonly changed?: PageSet | undefined },
  ) {
    this.#sink = sink;
    this.#regionId = regionId;
    this.#mapping = mapping;
    this.#options = options;
  }

  get sizeBytes(): number {
    return this.#mapping.sizeBytes;
  }

  async write(from: number, to: number): Promise<void> {
    for (let offset = from; offset < to; ) {
      const sizeBytes = Math.min(to - offset, PIECE_BYTES - (offset % PIECE_BYTES));
      const flight = this.#writePiece(offset, sizeBytes);
      // Its fault is met where it is waited for.
      flight.catch(() => {});
      this.#flights.push(flight);
      if (this.#flights.length >= PIECES_IN_FLIGHT) await this.#flights.shift();
      offset += sizeBytes;
      this.#options.signal?.throwIfAborted();
    }
  }

  /** @throws what became of one of them */
  async all(): Promise<void> {
    await Promise.all(this.#flights);
  }

  /** Until nobody reads from the mapping any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#flights);
  }

  async #writePiece(offset: number, sizeBytes: number): Promise<void> {
    const window = this.#mapping.window(offset, sizeBytes);
    const unchanged = this.#unchanged(offset, sizeBytes);
    try {
      await this.#sink.writeMemory(this.#regionId, offset, new Uint8Array(window), unchanged);
    } finally {
      this.#mapping.closeWindow(window);
    }
    this.#options.onProgress?.({ phase: "memory", done: offset + sizeBytes, total: this.sizeBytes });
  }

  #unchanged(offset: number, sizeBytes: number): Uint8Array | undefined {
    const { changed } = this.#options;
    if (changed === undefined) return undefined;
    const first = offset / PAGE_BYTES;
    return Uint8Array.from({ length: sizeBytes / PAGE_BYTES }, (_, page) =>
      changed.has(first + page) ? 0 : 1,
    );
  }
}
