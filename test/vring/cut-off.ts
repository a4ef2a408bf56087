class Killed extends Error {}

/** Runs `operation` and cuts it off before its nth atomic store: what SIGKILL leaves behind. Returns false if it was. */
export function cutOff(stores: number | undefined, operation: () => void): boolean {
  if (stores === undefined) {
    operation();
    return true;
  }
  const original = Atomics.store;
  let left = stores;
  Atomics.store = ((array: Int32Array, index: number, value: number) => {
    if (left-- <= 0) throw new Killed();
    return original(array, index, value);
  }) as typeof original;
  try {
    operation();
    // The operation had fewer stores: it dies right after it.
    return false;
  } catch (error) {
    if (error instanceof Killed) return false;
    throw error;
  } finally {
    Atomics.store = original;
  }
}
