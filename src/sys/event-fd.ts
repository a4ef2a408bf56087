import { EFD, F, O, POLL } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { pollNow } from "./poll.ts";

const one = new NativeBuffer(8);
one.view.setUint32(0, 1, true);
const drained = new NativeBuffer(8);

/** A counter in the kernel that one side adds to and the other waits on; non-blocking. */
export function createEventFd(label: string): Fd {
  return new Fd(check(libc.eventfd(0, EFD.CLOEXEC | EFD.NONBLOCK), "eventfd", label), label);
}

/**
 * Adds one to an event fd of our own or a peer's, without ever blocking.
 *
 * A peer may have sent a full pipe or a saturated blocking eventfd; its flags are shared with it and stay as they are,
 * so a blocking one is asked first whether it takes a write. Returns false where it does not: it is signalled already.
 */
export function signalEvent(fd: Fd): boolean {
  if (!isNonBlocking(fd) && (pollNow(fd, POLL.OUT) & POLL.OUT) === 0) return false;
  for (;;) {
    const written = libc.write(fd.number, one.address, 8);
    if (written >= 0) return true;
    const error = lastErrno();
    if (error === Errno.EAGAIN || error === Errno.EPIPE) return false;
    if (error !== Errno.EINTR) throw syscallError("write", fd.label);
  }
}

/** Takes whatever was signalled; true if there was anything. Never blocks. */
export function drainEvent(fd: Fd): boolean {
  if (!isNonBlocking(fd) && (pollNow(fd, POLL.IN) & POLL.IN) === 0) return false;
  for (;;) {
    const count = libc.read(fd.number, drained.address, 8);
    if (count >= 0) return count > 0;
    const error = lastErrno();
    if (error === Errno.EAGAIN) return false;
    if (error !== Errno.EINTR) throw syscallError("read", fd.label);
  }
}

const nonBlocking = new WeakMap<Fd, boolean>();

function isNonBlocking(fd: Fd): boolean {
  const known = nonBlocking.get(fd);
  if (known !== undefined) return known;
  const flags = check(libc.fcntl(fd.number, F.GETFL, 0), "fcntl(F_GETFL)", fd.label);
  const result = (flags & O.NONBLOCK) !== 0;
  nonBlocking.set(fd, result);
  return result;
}
