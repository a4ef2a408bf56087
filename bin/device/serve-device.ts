import {
  BackendSession,
  DeviceService,
  type ServeOptions,
  type SessionEnd,
  type VhostUserDevice,
} from "../../src/backend/mod.ts";
import { CancelledError, UsageError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import {
  check,
  type EventLoop,
  Fd,
  libc,
  NativeBuffer,
  UnixListener,
  UnixSocket,
} from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import { createStderrLogger } from "../output/stderr-logger.ts";
import { writeFully } from "../output/write-fully.ts";
import type { RunOptions } from "./run-options.ts";

const STDERR = 2;
/** SIGTERM is how a back-end program is ended (vhost-user spec, "Backend program conventions"): no failure. */
const TERMINATED_STATUS = 128 + 15;

/** The logger that a device's options ask for. */
export function loggerOf({ output }: CommandContext, options: RunOptions): Logger {
  return createStderrLogger({
    format: output.json ? "json" : options.logFormat,
    level: output.debug ? "debug" : options.logLevel,
    write: (text) => writeFully(STDERR, text),
  });
}

/** Where the front-end is. @throws UsageError unless it is exactly one place */
export function placeOf(options: RunOptions): { readonly socket: string } | { readonly fd: number } {
  const places = [options.socket, options.socketPath, options.fd].filter((place) => place !== undefined);
  const [place] = places;
  if (places.length !== 1 || place === undefined) {
    throw new UsageError("give one of --socket PATH (or --socket-path) and --fd N");
  }
  return typeof place === "number" ? { fd: place } : { socket: place };
}

/**
 * Serves a device until a signal comes, or its only front-end has gone. Returns the exit status.
 * @throws VhuError what the session failed with, where it is the only one
 */
export async function serveDevice(
  context: CommandContext,
  device: VhostUserDevice,
  loop: EventLoop,
  options: RunOptions,
): Promise<number> {
  const place = placeOf(options);
  const only = options.once === true || "fd" in place;
  let end: SessionEnd | undefined;
  const onSessionEnd = (ended: SessionEnd) => {
    end = ended;
  };
  const serveOptions: ServeOptions = {
    logger: loggerOf(context, options),
    once: options.once,
    demandSeals: options.untrustedPeer,
    deviceState: { idleTimeoutMs: options.stateIdleTimeoutMs },
    onSessionEnd,
  };
  using _service = serve(place, device, loop, serveOptions);
  context.signal.addEventListener("abort", () => loop.stop());
  announce(context, place);
  if (!context.signal.aborted) await loop.run();
  if (context.signal.aborted) return statusOf(context.signal);
  if (only && end?.kind === "failed") throw end.error;
  return 0;
}

function serve(
  place: ReturnType<typeof placeOf>,
  device: VhostUserDevice,
  loop: EventLoop,
  options: ServeOptions,
): Disposable {
  if ("socket" in place) return new DeviceService(device, UnixListener.listen(place.socket), loop, options);
  const onEnd = (end: SessionEnd) => {
    options.onSessionEnd?.(end);
    loop.stop();
  };
  return new BackendSession(connectedSocket(place.fd), device, loop, onEnd, options);
}

function announce({ output }: CommandContext, place: ReturnType<typeof placeOf>): void {
  if (output.json) output.line(toJson({ type: "ready", ...place }));
  else output.status("socket" in place ? `ready at ${place.socket}` : `ready on fd ${place.fd}`);
}

function statusOf(signal: AbortSignal): number {
  const { reason } = signal;
  const status = reason instanceof CancelledError ? reason.exitStatus : 1;
  return status === TERMINATED_STATUS ? 0 : status;
}

// include/uapi/asm-generic/socket.h: SOL_SOCKET, SO_ACCEPTCONN.
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;

/** @throws UsageError when the fd is not a connected socket */
function connectedSocket(number: number): UnixSocket {
  const value = new NativeBuffer(4);
  const length = new NativeBuffer(4);
  length.view.setUint32(0, 4, true);
  const result = libc.getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, value.address, length.address);
  try {
    check(result, "getsockopt(SO_ACCEPTCONN)", `fd ${number}`);
  } catch (cause) {
    throw new UsageError(`--fd ${number} is not an open socket`, { cause });
  }
  if (value.view.getInt32(0, true) !== 0) {
    throw new UsageError(
      `--fd ${number} is a listening socket, a connected one is needed; use --socket PATH`,
    );
  }
  return new UnixSocket(new Fd(number, `fd ${number} from the parent process`));
}
