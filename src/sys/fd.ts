import assert from "node:assert/strict";
import { F } from "./constants.ts";
import { check } from "./errno.ts";
import { libc } from "./libc.ts";

/**
 * A file descriptor with one owner. Hold it with `using`, or hand it on with `take()`.
 *
 * @example
 * using file = openFile("/etc/hostname", O.RDONLY);
 * const bytes = readFully(file, 64);
 */
export class Fd implements Disposable {
  static readonly #live = new Map<Fd, string>();
  #number: number;

  /** @param label what it is, for error messages and for the list of what a test forgot to close */
  constructor(
    number: number,
    readonly label: string,
  ) {
    assert(Number.isInteger(number) && number >= 0, `not a file descriptor: ${number}`);
    this.#number = number;
    Fd.#live.set(this, label);
  }

  /** The kernel's number, for the duration of one call. Fails on an fd that was closed or taken. */
  get number(): number {
    assert(this.#number >= 0, `the fd "${this.label}" was closed or taken`);
    return this.#number;
  }

  get isOpen(): boolean {
    return this.#number >= 0;
  }

  /** Gives up ownership: the caller must close the number. */
  take(): number {
    const number = this.number;
    this.#number = -1;
    Fd.#live.delete(this);
    return number;
  }

  /** A new Fd for the same open file description. */
  duplicate(label: string = this.label): Fd {
    return new Fd(
      check(libc.fcntl(this.number, F.DUPFD_CLOEXEC, 3), "fcntl(F_DUPFD_CLOEXEC)", this.label),
      label,
    );
  }

  [Symbol.dispose](): void {
    if (this.#number < 0) return;
    // close() on Linux always frees the number, even with EINTR or EIO: calling it again could close another's fd.
    libc.close(this.take());
  }

  /** Labels of the fds that are open in this thread, for tests that look for leaks. */
  static liveLabels(): string[] {
    return [...Fd.#live.values()];
  }
}

/** Closes every fd of a list. */
export function disposeAll(items: Iterable<Disposable>): void {
  for (const item of items) item[Symbol.dispose]();
}
