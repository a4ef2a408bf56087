/** A write whose windows are with the Workers: over when each of them is. */
export class PendingWrite {
  readonly promise: Promise<void>;
  readonly #resolve: () => void;
  #left: number;

  constructor(windowCount: number) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.promise = promise;
    this.#resolve = resolve;
    this.#left = windowCount;
  }

  oneDone(): void {
    this.#left -= 1;
    if (this.#left === 0) this.#resolve();
  }
}
