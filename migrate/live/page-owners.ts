import { MEMORY_PAGE_BYTES } from "../snapshot/mod.ts";

/** Which stream has sent each page last: only that one knows what the receiver has there. */
export class PageOwners {
  readonly #stream: number;
  readonly #regions: readonly Uint8Array[];

  /** @param memories A byte for each page of each region, in the order of their numbers; none where there is one stream. */
  constructor(stream: number, memories: readonly SharedArrayBuffer[]) {
    this.#stream = stream;
    this.#regions = memories.map((memory) => new Uint8Array(memory));
  }

  /** The page is sent by this stream; whether it was before. */
  take(regionId: number, offset: number): boolean {
    const owners = this.#regions[regionId];
    if (owners === undefined) return true;
    return Atomics.exchange(owners, offset / MEMORY_PAGE_BYTES, this.#stream) === this.#stream;
  }
}
