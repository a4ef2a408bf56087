import { EFD, RWF } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { signalEventFd } from "./event-signal.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

/** Offset for preadv2 and pwritev2 on what has no position. */
const AT_POSITION = -1;

/** A struct iovec with its 8 bytes behind it. In one block: the collector takes a buffer that C alone knows (tried). */
const EVENT_OFFSET = 16;
const one = eventVector();
one.view.setUint32(EVENT_OFFSET, 1, true);
const drained = eventVector();

/** Those that pwritev2 refused to write to without waiting: eventfds. */
const eventFds = new WeakSet<Fd>();

/** A counter in the kernel that one side adds to and the other waits on; non-blocking. */
export function createEventFd(label: string): Fd {
  return new Fd(check(libc.eventfd(0, EFD.CLOEXEC | EFD.NONBLOCK), "eventfd", label), label);
}

/**
 * Adds one to an event fd of our own or a peer's, without ever blocking. False: it was full, so it is signalled already.
 *
 * A peer may have sent a full pipe or a saturated eventfd, may fill it at any moment, and shares the flags of its
 * description, O_NONBLOCK among them, which it can take back: so nothing is believed about them and none is changed, but
 * each call says for itself that it does not wait.
 *
 * @throws SyscallError when it is neither an eventfd, a pipe nor a socket
 */
export function signalEvent(fd: Fd): boolean {
  while (!eventFds.has(fd)) {
    const written = libc.pwritev2(fd.number, one.address, 1, AT_POSITION, RWF.NOWAIT);
    if (written >= 0) return true;
    const error = lastErrno();
    if (error === Errno.EAGAIN || error === Errno.EPIPE) return false;
    if (error === Errno.EOPNOTSUPP) eventFds.add(fd);
    else if (error !== Errno.EINTR) throw syscallError("pwritev2", fd.label);
  }
  return signalEventFd(fd);
}

/**
 * Takes whatever was signalled; true if there was anything. Never blocks, though a peer may drain it at the same time.
 * @throws SyscallError EOPNOTSUPP for what cannot be read without waiting, e.g. a terminal, or a pipe before Linux 6.4
 */
export function drainEvent(fd: Fd): boolean {
  for (;;) {
    const count = libc.preadv2(fd.number, drained.address, 1, AT_POSITION, RWF.NOWAIT);
    if (count >= 0) return count > 0;
    const error = lastErrno();
    if (error === Errno.EAGAIN) return false;
    if (error !== Errno.EINTR) throw syscallError("preadv2", fd.label);
  }
}

function eventVector(): NativeBuffer {
  const block = new NativeBuffer(EVENT_OFFSET + 8);
  block.setPointer(0, block.address + EVENT_OFFSET);
  block.setPointer(8, 8);
  return block;
}
