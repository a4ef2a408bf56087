import type { Deadline } from "./deadline.ts";
import { Errno, lastErrno, syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

const scratch = new NativeBuffer(8);

function pollOnce(fd: Fd, events: number, timeoutMs: number): number {
  scratch.view.setInt32(0, fd.number, true);
  scratch.view.setInt16(4, events, true);
  scratch.view.setInt16(6, 0, true);
  const result = libc.poll(scratch.address, 1, timeoutMs);
  if (result < 0) {
    if (lastErrno() === Errno.EINTR) return -1;
    throw syscallError("poll", fd.label);
  }
  return scratch.view.getInt16(6, true);
}

/** What is ready on `fd` right now: a mask of POLL bits, 0 for nothing. */
export function pollNow(fd: Fd, events: number): number {
  for (;;) {
    const ready = pollOnce(fd, events, 0);
    if (ready >= 0) return ready;
  }
}

/** Waits in line until `fd` is ready or the deadline is over (then 0). Signals do not end the wait. */
export function waitReadySync(fd: Fd, events: number, deadline: Deadline): number {
  for (;;) {
    const ready = pollOnce(fd, events, deadline.pollTimeoutMs);
    if (ready > 0 || (ready === 0 && deadline.expired)) return ready;
  }
}

/** One turn of the JavaScript event loop: signal handlers, timers and settled promises get to run. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Short: what else this thread has to do waits meanwhile, such as a connection that is to be written to. */
const SLICE_MS = 1;

/**
 * Waits until `fd` is ready or the deadline is over (then 0), and lets the event loop turn meanwhile, so that Ctrl-C,
 * timers and progress bars work. A signal ends the poll at once (EINTR) and its handler runs in the turn that follows.
 *
 * @param sliceMs For how long at most nothing else is done: less where this thread has Workers to serve, too.
 * @throws what `signal` was aborted with
 */
export async function waitReady(
  fd: Fd,
  events: number,
  deadline: Deadline,
  signal?: AbortSignal,
  sliceMs = SLICE_MS,
): Promise<number> {
  const now = pollNow(fd, events);
  if (now !== 0) return now;
  for (;;) {
    await eventLoopTurn();
    signal?.throwIfAborted();
    const ready = pollOnce(fd, events, Math.min(sliceMs, deadline.pollTimeoutMs >>> 0));
    if (ready > 0) return ready;
    if (deadline.expired) return 0;
  }
}
