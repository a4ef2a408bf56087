import { EPOLL, EPOLL_DATA_OFFSET, EPOLL_EVENT_BYTES } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

const EVENTS_PER_WAIT = 64;

/** A set of fds to wait on, for a thread's own loop. Waiting allocates nothing; level-triggered. */
export class Epoll implements Disposable {
  readonly #fd = new Fd(check(libc.epoll_create1(EPOLL.CLOEXEC), "epoll_create1", ""), "epoll");
  readonly #events = new NativeBuffer(EVENTS_PER_WAIT * EPOLL_EVENT_BYTES);
  readonly #request = new NativeBuffer(16);

  /** Adds an fd; `token` (31 bits) names it in what `wait` finds. */
  add(fd: Fd, events: number, token: number): void {
    this.#request.view.setUint32(0, events, true);
    this.#request.view.setInt32(EPOLL_DATA_OFFSET, token, true);
    check(
      libc.epoll_ctl(this.#fd.number, EPOLL.CTL_ADD, fd.number, this.#request.address),
      "epoll_ctl",
      fd.label,
    );
  }

  /** Must come before the fd is closed: a duplicate elsewhere would keep the entry alive. */
  remove(fd: Fd): void {
    check(
      libc.epoll_ctl(this.#fd.number, EPOLL.CTL_DEL, fd.number, this.#request.address),
      "epoll_ctl",
      fd.label,
    );
  }

  /** Waits until something is ready. Returns how many are, 0 when the time is over or a signal came; -1 waits for ever. */
  wait(timeoutMs: number): number {
    const count = libc.epoll_wait(this.#fd.number, this.#events.address, EVENTS_PER_WAIT, timeoutMs);
    if (count >= 0) return count;
    if (lastErrno() === Errno.EINTR) return 0;
    throw syscallError("epoll_wait", "");
  }

  /** The token of the `index`-th fd that the last wait found. */
  token(index: number): number {
    return this.#events.view.getInt32(index * EPOLL_EVENT_BYTES + EPOLL_DATA_OFFSET, true);
  }

  /** What it is ready for: POLL bits. */
  ready(index: number): number {
    return this.#events.view.getUint32(index * EPOLL_EVENT_BYTES, true);
  }

  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}
