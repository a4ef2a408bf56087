import { PAGE_BYTES, type PageSet } from "../../src/memory/mod.ts";
import type { Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";

/** One write to the sink: enough that the compression Workers are never without work, small enough for progress and Ctrl-C. */
const PIECE_BYTES = 16 << 20;
const PIECES_IN_FLIGHT = 2;
/** Single pages, mostly: what is written while a machine runs is scattered. */
const SHORT_PIECE_BYTES = 64 << 10;

export interface PieceOptions extends MoveOptions {
  /** The pages that are not in it are as in the sink's base. */
  readonly changed?: PageSet | undefined;
  /** The memory changes meanwhile: what goes to the sink is copied first, since nothing may change beneath it. */
  readonly isRunning?: boolean | undefined;
}

/** Writes ranges of a mapping to a sink, some pieces at a time. */
export class PieceWriter {
  readonly #sink: VmSink;
  readonly #regionId: number;
  readonly #mapping: Mapping;
  readonly #options: PieceOptions;
  /** Copies of pieces, as many as are in flight. */
  readonly #copies: Uint8Array<ArrayBuffer>[] = [];
  readonly #flights: Promise<void>[] = [];

  constructor(sink: VmSink, regionId: number, mapping: Mapping, options: PieceOptions) {
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
    const copy = this.#options.isRunning ? this.#copyOf(new Uint8Array(window)) : undefined;
    const bytes = copy?.subarray(0, sizeBytes) ?? new Uint8Array(window);
    try {
      await this.#sink.writeMemory(this.#regionId, offset, bytes, this.#unchanged(offset, sizeBytes));
    } finally {
      this.#mapping.closeWindow(window);
      if (copy !== undefined) this.#copies.push(copy);
    }
    this.#options.onProgress?.({ phase: "memory", done: offset + sizeBytes, total: this.sizeBytes });
  }

  #copyOf(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    const isShort = bytes.length <= SHORT_PIECE_BYTES;
    const free = this.#copies.findIndex(
      ({ length }) => length === (isShort ? SHORT_PIECE_BYTES : PIECE_BYTES),
    );
    const [found] = free < 0 ? [] : this.#copies.splice(free, 1);
    const copy = found ?? new Uint8Array(new ArrayBuffer(isShort ? SHORT_PIECE_BYTES : PIECE_BYTES));
    copy.set(bytes);
    return copy;
  }

  #unchanged(offset: number, sizeBytes: number): Uint8Array | undefined {
    const { changed } = this.#options;
    if (changed === undefined) return undefined;
    const first = offset / PAGE_BYTES;
    const unchanged = new Uint8Array(sizeBytes / PAGE_BYTES);
    for (let page = 0; page < unchanged.length; page += 1)
      unchanged[page] = changed.has(first + page) ? 0 : 1;
    return unchanged;
  }
}
