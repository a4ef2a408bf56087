import { UnixSocket as Socket, setBufferSizes, type UnixSocket } from "../../src/sys/mod.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

/** The kernel gives what it allows (net.core.wmem_max). */
const SOCKET_BUFFER_BYTES = 4 << 20;

/** Both ends of a stream's socket. A socket and not a pipe: the return path comes back through it. */
export function streamSockets(): [ours: UnixSocket, theirs: UnixSocket] {
  const [ours, theirs] = Socket.pair();
  setBufferSizes(ours, SOCKET_BUFFER_BYTES);
  setBufferSizes(theirs, SOCKET_BUFFER_BYTES);
  return [ours, theirs];
}

/** A socket whose other end QEMU has under a name (`getfd`), for `migrate` or `migrate-incoming` to "fd:NAME". */
export async function giveStreamSocket(client: QmpClient): Promise<{ socket: UnixSocket; uri: string }> {
  const [ours, theirs] = streamSockets();
  using stack = new DisposableStack();
  stack.use(ours);
  using given = theirs;
  const fdname = `vhu-${crypto.randomUUID()}`;
  await client.request("getfd", { answer: qmpNothing, arguments: { fdname }, fd: given.fd });
  stack.move();
  return { socket: ours, uri: `fd:${fdname}` };
}
