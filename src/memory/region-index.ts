import type { MemoryRegion } from "./memory-region.ts";

/** Finds the region that holds an address: the last hit first, then by binary search. Allocates nothing. */
export class RegionIndex {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;
  readonly #regions: readonly MemoryRegion[];
  #last = 0;

  constructor(
    regions: readonly MemoryRegion[],
    range: (region: MemoryRegion) => { start: number; end: number },
  ) {
    this.#regions = [...regions].sort((a, b) => range(a).start - range(b).start);
    this.#starts = Float64Array.from(this.#regions, (region) => range(region).start);
    this.#ends = Float64Array.from(this.#regions, (region) => range(region).end);
  }

  /** Regions in the order of their addresses. */
  get sorted(): readonly MemoryRegion[] {
    return this.#regions;
  }

  find(address: number): MemoryRegion | undefined {
    const last = this.#last;
    // Beyond an empty index both reads give undefined, and no comparison with undefined holds.
    if (address >= this.#starts[last]! && address < this.#ends[last]!) return this.#regions[last];
    return this.#search(address);
  }

  #search(address: number): MemoryRegion | undefined {
    let low = 0;
    let high = this.#starts.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (address < this.#starts[middle]!) high = middle - 1;
      else if (address >= this.#ends[middle]!) low = middle + 1;
      else {
        this.#last = middle;
        return this.#regions[middle];
      }
    }
    return undefined;
  }

  /** The first two neighbours that overlap. */
  overlap(): [MemoryRegion, MemoryRegion] | undefined {
    for (let i = 1; i < this.#regions.length; i++) {
      if (this.#starts[i]! < this.#ends[i - 1]!) return [this.#regions[i - 1]!, this.#regions[i]!];
    }
    return undefined;
  }
}
