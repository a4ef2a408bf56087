import { FormatError } from "../../src/errors.ts";

/** Data streams that wait for each other between two passes: a page may take another stream in the next one. */
export class PassBarrier {
  /** How many ends of passes each stream has come to. */
  readonly #ends: number[];
  #waiting: { readonly end: number; readonly resolve: () => void }[] = [];

  constructor(streams: number) {
    this.#ends = new Array(streams).fill(0);
  }

  /** A stream has come to the end of a pass: over when all have. @throws FormatError for a stream that has no passes */
  next(stream: number): Promise<void> {
    const ends = this.#ends[stream - 1];
    if (ends === undefined) throw new FormatError(`stream ${stream} has no passes`, "pass");
    const end = ends + 1;
    this.#ends[stream - 1] = end;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ end, resolve });
    const all = Math.min(...this.#ends);
    this.#waiting = this.#waiting.filter((each) => {
      if (each.end > all) return true;
      each.resolve();
      return false;
    });
    return promise;
  }
}
