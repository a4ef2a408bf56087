import { CompatibilityError } from "../errors.ts";
import { MAX_MEM_TABLE_REGIONS } from "../limits.ts";
import type { BackendClient, SharedRegion } from "./backend-client.ts";

/** What a back-end knows of the guest's memory, and how it is told: as one table, or region by region. */
export class SharedMemory {
  /** Regions that the back-end has in slots; empty while it has a table. */
  #slots: readonly SharedRegion[] = [];

  constructor(
    readonly client: BackendClient,
    readonly hasSlots: boolean,
  ) {}

  /**
   * Makes the back-end know exactly these regions. What it has in slots already stays there: it refuses to add it twice.
   * @throws CompatibilityError when there are more than it takes
   */
  share(memory: readonly SharedRegion[]): void {
    if (memory.length <= MAX_MEM_TABLE_REGIONS && this.#slots.length === 0) {
      this.client.setMemTable(memory);
      return;
    }
    this.#checkCount(memory.length);
    for (const region of this.#slots)
      if (!memory.some((other) => isSame(other, region))) this.#remove(region);
    for (const region of memory) if (!this.#slots.some((other) => isSame(other, region))) this.#add(region);
  }

  #add(region: SharedRegion): void {
    this.client.addMemReg(region);
    this.#slots = [...this.#slots, region];
  }

  #remove(region: SharedRegion): void {
    this.client.remMemReg(region.layout);
    this.#slots = this.#slots.filter((other) => other !== region);
  }

  #checkCount(count: number): void {
    if (!this.hasSlots) {
      throw new CompatibilityError(
        `the back-end takes ${MAX_MEM_TABLE_REGIONS} memory regions, there are ${count}`,
      );
    }
    const slots = this.client.getMaxMemSlots();
    if (count > slots)
      throw new CompatibilityError(`the back-end has ${slots} memory slots, ${count} are needed`);
  }
}

function isSame(a: SharedRegion, b: SharedRegion): boolean {
  return (
    a.fd === b.fd &&
    a.layout.guestAddress === b.layout.guestAddress &&
    a.layout.userAddress === b.layout.userAddress &&
    a.layout.sizeBytes === b.layout.sizeBytes &&
    a.layout.mmapOffset === b.layout.mmapOffset
  );
}
