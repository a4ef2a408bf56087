import assert from "node:assert/strict";
import { EPOLL, EPOLL_DATA_OFFSET, EPOLL_EVENT_BYTES } from "./constants.ts";
import { Deadline } from "./deadline.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { eventLoopTurn } from "./poll.ts";

export type ReadyHandler = (readyMask: number) => void;

interface Watch {
  readonly fd: Fd;
  readonly onReady: ReadyHandler;
}

interface Timer {
  readonly deadline: Deadline;
  readonly onTime: () => void;
}

const EVENTS_PER_WAIT = 64;
/** How long `run` may keep a signal's JavaScript handler waiting while handlers run; a turn costs some 10 us. */
const SIGNAL_LATENCY_MS = 20;
/** The longest wait for something to happen. A signal ends it, but for one that comes just before it begins. */
const IDLE_WAIT_MS = 250;

/**
 * The loop of a control thread: fds by epoll, timers, and nothing else; handlers run in line.
 *
 * While it blocks in epoll_wait no promise, timer or file API of JavaScript runs. A signal ends the wait with EINTR
 * (the kernel prefers the main thread for it), and `run` then gives JavaScript's own loop one turn, in which the
 * handlers of `process.on("SIGTERM", …)` run.
 *
 * @example
 * using loop = new EventLoop();
 * loop.watch(socket, POLL.IN, () => server.handleMessage());
 * process.on("SIGTERM", () => loop.stop());
 * await loop.run();
 */
export class EventLoop implements Disposable {
  readonly #epoll = new Fd(check(libc.epoll_create1(EPOLL.CLOEXEC), "epoll_create1", ""), "epoll");
  readonly #events = new NativeBuffer(EVENTS_PER_WAIT * EPOLL_EVENT_BYTES);
  readonly #request = new NativeBuffer(16);
  readonly #watches = new Map<number, Watch>();
  readonly #timers = new Set<Timer>();
  #stopped = false;

  /** Calls `onReady` whenever one of the POLL bits in `interest` (or ERR, HUP) holds for `fd`. */
  watch(fd: Fd, interest: number, onReady: ReadyHandler): void {
    const number = fd.number;
    assert(!this.#watches.has(number), `fd ${number} (${fd.label}) is watched already`);
    this.#control(EPOLL.CTL_ADD, fd, interest);
    this.#watches.set(number, { fd, onReady });
  }

  /** Changes what is waited for; 0 leaves only errors and hang-ups. */
  modify(fd: Fd, interest: number): void {
    this.#control(EPOLL.CTL_MOD, fd, interest);
  }

  /** Ends the watch. Must come before the fd is closed: a duplicate elsewhere would keep epoll's entry alive. */
  unwatch(fd: Fd): void {
    if (!this.isWatched(fd)) return;
    this.#watches.delete(fd.number);
    this.#control(EPOLL.CTL_DEL, fd, 0);
  }

  isWatched(fd: Fd): boolean {
    return fd.isOpen && this.#watches.get(fd.number)?.fd === fd;
  }

  /** Calls `onTime` once, `delayMs` from now, unless the returned function is called before. */
  schedule(delayMs: number, onTime: () => void): () => void {
    const timer = { deadline: new Deadline(delayMs), onTime };
    this.#timers.add(timer);
    return () => void this.#timers.delete(timer);
  }

  /** Waits for at most `timeoutMs` and runs what is ready. Returns false when a signal ended the wait. */
  runOnce(timeoutMs: number): boolean {
    const count = libc.epoll_wait(
      this.#epoll.number,
      this.#events.address,
      EVENTS_PER_WAIT,
      this.#timeout(timeoutMs),
    );
    if (count < 0) {
      if (lastErrno() === Errno.EINTR) return false;
      throw syscallError("epoll_wait", "");
    }
    this.#dispatch(count);
    this.#runTimers();
    return true;
  }

  /** Runs until `stop()`. */
  async run(): Promise<void> {
    this.#stopped = false;
    let turnMs = performance.now();
    let waitMs = IDLE_WAIT_MS;
    while (!this.#stopped) {
      // A signal that comes while a handler runs interrupts no wait: without a turn soon after it would be lost (tried).
      const interrupted = !this.runOnce(waitMs);
      waitMs = turnMs + SIGNAL_LATENCY_MS - performance.now();
      if (!interrupted && waitMs > 0) continue;
      await eventLoopTurn();
      turnMs = performance.now();
      waitMs = IDLE_WAIT_MS;
    }
  }

  /** Makes `run` return after the handler that is running. */
  stop(): void {
    this.#stopped = true;
  }

  [Symbol.dispose](): void {
    this.#watches.clear();
    this.#timers.clear();
    this.#epoll[Symbol.dispose]();
  }

  #dispatch(count: number): void {
    const { view } = this.#events;
    // Copied first: a handler that waits for its peer runs this loop again, which fills the same buffer.
    const ready = Array.from({ length: count }, (_, i) => {
      const base = i * EPOLL_EVENT_BYTES;
      return { number: view.getInt32(base + EPOLL_DATA_OFFSET, true), mask: view.getUint32(base, true) };
    });
    for (const { number, mask } of ready) {
      // A handler that ran before in this batch may have ended this watch, or replaced the fd by another.
      const watch = this.#watches.get(number);
      if (watch?.fd.isOpen) watch.onReady(mask);
    }
  }

  #runTimers(): void {
    for (const timer of this.#timers) {
      if (timer.deadline.expired && this.#timers.delete(timer)) timer.onTime();
    }
  }

  #timeout(timeoutMs: number): number {
    let earliest = timeoutMs;
    for (const timer of this.#timers) earliest = Math.min(earliest, timer.deadline.remainingMs);
    return earliest === Infinity ? -1 : Math.ceil(earliest);
  }

  #control(operation: number, fd: Fd, interest: number): void {
    this.#request.view.setUint32(0, interest, true);
    this.#request.view.setInt32(EPOLL_DATA_OFFSET, fd.number, true);
    check(
      libc.epoll_ctl(this.#epoll.number, operation, fd.number, this.#request.address),
      "epoll_ctl",
      fd.label,
    );
  }
}
