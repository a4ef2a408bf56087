import { ProtocolError } from "../errors.ts";
import { disposeAll, type Fd } from "../sys/mod.ts";

/** The fds that came with one message. Whoever handles the message takes what it keeps; the rest is closed. */
export class ReceivedFds implements Disposable {
  #fds: Fd[];

  constructor(fds: Fd[] = []) {
    this.#fds = fds;
  }

  get count(): number {
    return this.#fds.length;
  }

  /** Takes the first fd that is left. @throws ProtocolError when none is */
  take(request: string): Fd {
    const fd = this.#fds.shift();
    if (fd === undefined) throw new ProtocolError("came without the file descriptor it needs", request);
    return fd;
  }

  takeAll(): Fd[] {
    const fds = this.#fds;
    this.#fds = [];
    return fds;
  }

  /** @throws ProtocolError when the number of fds is not within `min` and `max` */
  check(request: string, min: number, max: number): void {
    if (this.count >= min && this.count <= max) return;
    const expected = min === max ? `${min}` : `${min} to ${max}`;
    throw new ProtocolError(`came with ${this.count} file descriptors, ${expected} expected`, request);
  }

  [Symbol.dispose](): void {
    disposeAll(this.takeAll());
  }
}
