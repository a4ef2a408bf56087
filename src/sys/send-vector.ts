import { PeerError } from "../errors.ts";
import { MSG } from "./constants.ts";
import { Errno, lastErrno, syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import type { IoVector } from "./io-vector.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { WOULD_BLOCK } from "./unix-socket.ts";

// struct msghdr: 56 bytes, with the iovec's address at 16 and its length at 24. One for all: nothing here is asynchronous.
const message = new NativeBuffer(56);

/**
 * One sendmsg of all pieces on a connected socket, without waiting. Returns the bytes taken, or WOULD_BLOCK.
 * @throws PeerError when the peer has hung up
 */
export function sendVector(socket: Fd, vector: IoVector): number {
  message.setPointer(16, vector.address);
  message.setPointer(24, vector.count);
  for (;;) {
    const sent = libc.sendmsg(socket.number, message.address, MSG.DONTWAIT | MSG.NOSIGNAL);
    if (sent >= 0) return Number(sent);
    const error = lastErrno();
    if (error === Errno.EAGAIN) return WOULD_BLOCK;
    if (error === Errno.EPIPE || error === Errno.ECONNRESET) {
      throw new PeerError(`the peer hung up (${socket.label})`, { reconnect: true });
    }
    if (error !== Errno.EINTR) throw syscallError("sendmsg", socket.label);
  }
}
