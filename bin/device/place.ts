import { UsageError } from "../../src/errors.ts";
import { check, libc, NativeBuffer } from "../../src/sys/mod.ts";

/** Where the front-end is: it connects to a path, or listens at one, or the parent process has the socket. */
export type Place =
  | { readonly socket: string }
  | { readonly connect: string }
  | { readonly fd: number; readonly listens: boolean };

export interface PlaceOptions {
  readonly socket?: string;
  readonly socketPath?: string;
  readonly connect?: string;
  readonly fd?: number;
}

/** @throws UsageError unless it is exactly one place, and an fd is a UNIX socket that is connected or listens */
export function placeOf({ socket, socketPath, connect, fd }: PlaceOptions): Place {
  const count = [socket, socketPath, connect, fd].filter((place) => place !== undefined).length;
  if (count !== 1) {
    throw new UsageError("give one of --socket PATH (or --socket-path), --connect PATH and --fd N");
  }
  if (fd !== undefined) return { fd, listens: isListening(fd) };
  return connect === undefined ? { socket: (socket ?? socketPath) as string } : { connect };
}

/** For people: "at PATH" or "on fd N". */
export function describePlace(place: Place): string {
  if ("fd" in place) return `on fd ${place.fd}`;
  return "socket" in place ? `at ${place.socket}` : `for the front-end at ${place.connect}`;
}

// include/uapi/asm-generic/socket.h: SOL_SOCKET, SO_ACCEPTCONN.
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;

/** @throws UsageError when the fd is not a socket */
function isListening(fd: number): boolean {
  const value = new NativeBuffer(4);
  const length = new NativeBuffer(4);
  length.view.setUint32(0, 4, true);
  try {
    const result = libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, value.address, length.address);
    check(result, "getsockopt(SO_ACCEPTCONN)", `fd ${fd}`);
  } catch (cause) {
    throw new UsageError(`--fd ${fd} is not an open socket`, { cause });
  }
  return value.view.getInt32(0, true) !== 0;
}
