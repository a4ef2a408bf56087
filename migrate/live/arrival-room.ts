import { FormatError } from "../../src/errors.ts";
import { MAX_LIVE_STATES_BYTES } from "../../src/limits.ts";

/** What one machine that is arriving has got: nobody else gets the same until it is disposed of. */
export interface HeldPlace extends Disposable {
  /** Of its memory, what has come already: the kernel counts that itself. */
  arrivedBytes: number;
  /** Its states take so much more. @throws FormatError when all arrivals together have too much */
  takeState(sizeBytes: number): void;
}

export interface PlaceWish {
  readonly name: string;
  readonly memoryBytes: number;
  /** Files that it will write. */
  readonly disks: readonly string[];
}

interface Held {
  readonly wish: PlaceWish;
  readonly place: HeldPlace;
  stateBytes: number;
}

/** What is promised to all machines that are arriving at a receiver. Whoever has looked at it takes its place at once, without a wait between. */
export class ArrivalRoom {
  readonly #held = new Set<Held>();

  constructor(readonly maxStateBytes = MAX_LIVE_STATES_BYTES) {}

  hasName(name: string): boolean {
    return [...this.#held].some(({ wish }) => wish.name === name);
  }

  /** Whose disk it will be. */
  writerOf(disk: string): string | undefined {
    return [...this.#held].find(({ wish }) => wish.disks.includes(disk))?.wish.name;
  }

  /** Memory that is promised and has not come yet. */
  get promisedBytes(): number {
    return sum([...this.#held].map(({ wish, place }) => Math.max(wish.memoryBytes - place.arrivedBytes, 0)));
  }

  hold(wish: PlaceWish): HeldPlace {
    const held: Held = {
      wish,
      stateBytes: 0,
      place: {
        arrivedBytes: 0,
        takeState: (sizeBytes) => this.#takeState(held, sizeBytes),
        [Symbol.dispose]: () => void this.#held.delete(held),
      },
    };
    this.#held.add(held);
    return held.place;
  }

  #takeState(held: Held, sizeBytes: number): void {
    if (sum([...this.#held].map(({ stateBytes }) => stateBytes)) + sizeBytes > this.maxStateBytes) {
      throw new FormatError(
        `the states of all machines that arrive are larger than the limit of ${this.maxStateBytes} bytes`,
        "state",
      );
    }
    held.stateBytes += sizeBytes;
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
