import type { VmSink } from "../driver.ts";

/** Several frames, so that the Workers have something to do side by side. */
const WINDOW_BYTES = 4 << 20;
/** One is filled while the others are compressed. */
const WINDOW_COUNT = 8;

/** A buffer for pages, and what of it is being written. */
class PageWindow {
  readonly bytes = new Uint8Array(new ArrayBuffer(WINDOW_BYTES));
  fill = 0;
  writes = 0;
}

/** Buffers that pages are gathered in, run by run, while earlier ones are being written. */
export class PageWindows {
  readonly #sink: VmSink;
  readonly #free: PageWindow[] = [];
  #count = 1;
  #current = new PageWindow();
  /** Where the run that is open starts in the current window. */
  #runStart = 0;
  readonly #flights = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  constructor(sink: VmSink) {
    this.#sink = sink;
  }

  /** What the open run can have more in this window. */
  get roomBytes(): number {
    return WINDOW_BYTES - this.#current.fill;
  }

  /** @param page fits into the room */
  append(page: Uint8Array): void {
    this.#current.bytes.set(page, this.#current.fill);
    this.#current.fill += page.length;
  }

  appendZeros(sizeBytes: number): void {
    this.#current.bytes.fill(0, this.#current.fill, this.#current.fill + sizeBytes);
    this.#current.fill += sizeBytes;
  }

  /** Begins to write the run that is open; the next one begins. */
  write(regionId: number, offset: number): void {
    const window = this.#current;
    const bytes = window.bytes.subarray(this.#runStart, window.fill);
    this.#runStart = window.fill;
    window.writes += 1;
    const flight = this.#sink
      .writeMemory(regionId, offset, bytes)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => {
        this.#flights.delete(flight);
        window.writes -= 1;
        if (window.writes === 0 && window !== this.#current) this.#release(window);
      });
    this.#flights.add(flight);
  }

  /** A window with all its room, for the run that begins. */
  next(): void {
    const window = this.#current;
    this.#current = this.#free.pop() ?? this.#newWindow();
    this.#runStart = 0;
    if (window.writes === 0) this.#release(window);
  }

  /** Until a window is free, so that what comes next finds room. */
  async ready(): Promise<void> {
    while (this.#free.length === 0 && this.#count >= WINDOW_COUNT && this.#flights.size > 0) {
      await Promise.race(this.#flights);
    }
    this.#expectNoFailure();
  }

  /** Until all is written. */
  async settled(): Promise<void> {
    await Promise.all(this.#flights);
    this.#expectNoFailure();
  }

  #newWindow(): PageWindow {
    this.#count += 1;
    return new PageWindow();
  }

  #release(window: PageWindow): void {
    window.fill = 0;
    this.#free.push(window);
  }

  #expectNoFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
