import { FormatError } from "../errors.ts";
import { MAX_QUEUE_SIZE } from "../limits.ts";

/** A chain that the device has not given back. */
export interface OutstandingChain<Token> {
  /** Head index (split) or buffer id (packed). */
  readonly id: number;
  /** Descriptors of the ring that it occupies; for a split ring their indices in order, for a packed one their count. */
  readonly descriptors: readonly number[];
  readonly token: Token;
}

/**
 * All that the driver's side of a ring knows beside what is in guest memory: plain data, so that a suspended machine goes
 * on with the same ring in a new process. It is as plain as its tokens are.
 */
export interface DriverRingState<Token> {
  readonly packed: boolean;
  readonly size: number;
  /** Split: the free-running available index. Packed: the next position, wrap counter in bit 15. */
  readonly availableIndex: number;
  /** As availableIndex, for the next used entry to look at. */
  readonly usedIndex: number;
  /** Free descriptors (split) or buffer ids (packed), the next one to be used last. */
  readonly free: readonly number[];
  readonly outstanding: readonly OutstandingChain<Token>[];
}

/**
 * Checks a state that comes from a file against the ring that it is to continue.
 * @throws FormatError
 */
export function checkDriverState<Token>(state: DriverRingState<Token>, size: number, packed: boolean): void {
  const fail = (what: string) => new FormatError(what, "driver ring state");
  if (state.size !== size || state.packed !== packed || size > MAX_QUEUE_SIZE) {
    throw fail(
      `a ${state.packed ? "packed" : "split"} ring of ${state.size} descriptors, not the ring at hand`,
    );
  }
  for (const index of [state.availableIndex, state.usedIndex]) {
    const position = packed ? index & 0x7fff : 0;
    if (!(Number.isInteger(index) && index >= 0 && index <= 0xffff && position < size)) {
      throw fail(`index ${index} of a ring of ${size}`);
    }
  }
  const seen = new Set<number>();
  const claim = (index: number) => {
    if (!(Number.isInteger(index) && index >= 0 && index < size) || seen.has(index)) {
      throw fail(`descriptor ${index} does not exist or occurs twice`);
    }
    seen.add(index);
  };
  for (const index of state.free) claim(index);
  let occupied = 0;
  for (const { id, descriptors } of state.outstanding) {
    if (packed) {
      claim(id);
      occupied += descriptors[0] ?? 0;
    } else {
      if (descriptors[0] !== id) throw fail(`chain ${id} does not start at its head`);
      for (const index of descriptors) claim(index);
    }
  }
  if (seen.size !== size || occupied > size)
    throw fail(`${seen.size} of ${size} descriptors are accounted for`);
}
