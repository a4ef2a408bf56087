import {
  BackendSession,
  DeviceService,
  type ServeOptions,
  type SessionEnd,
  type VhostUserDevice,
  type WorkerRings,
} from "../../src/backend/mod.ts";
import { CancelledError } from "../../src/errors.ts";
import { type EventLoop, Fd, UnixListener, UnixSocket } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import { ConnectingService } from "./connecting-service.ts";
import { loggerOf } from "./device-logger.ts";
import { describePlace, type Place, placeOf } from "./place.ts";
import type { RunOptions } from "./run-options.ts";

/** SIGTERM is how a back-end program is ended (vhost-user spec, "Backend program conventions"): no failure. */
const TERMINATED_STATUS = 128 + 15;
/** As long as a VMM that boots beside us may need until it listens. */
const DEFAULT_CONNECT_TIMEOUT_MS = 30_000;

/** What serves the device's front-ends, whichever way they come. */
type Service = Disposable & {
  readonly isConnected: boolean;
  pauseAll(): void;
  resumeAll(): void;
  readonly failure?: Error | undefined;
};

/**
 * Serves a device until a signal comes, or its only front-end has gone. Returns the exit status.
 *
 * @param ringWorkers where its queues run, for a device with a ring program; without, they run in line
 * @throws VhuError what the session failed with, where it is the only one
 */
export async function serveDevice(
  context: CommandContext,
  device: VhostUserDevice,
  loop: EventLoop,
  options: RunOptions,
  ringWorkers?: WorkerRings,
): Promise<number> {
  const place = placeOf(options);
  const only = options.once === true || ("fd" in place && !place.listens);
  let end: SessionEnd | undefined;
  const serveOptions: ServeOptions = {
    logger: loggerOf(context, options),
    once: options.once,
    demandSeals: options.untrustedPeer,
    ringWorkers,
    deviceState: { idleTimeoutMs: options.stateIdleTimeoutMs },
    onSessionEnd: (ended) => {
      end = ended;
    },
  };
  using stack = new DisposableStack();
  const service = stack.use(serve(place, device, loop, { ...serveOptions, ...connectTimeoutOf(options) }));
  const { control: path, controlFd } = options;
  if (path !== undefined || controlFd !== undefined) {
    const { DeviceControl } = await import("./device-control.ts");
    const parent =
      controlFd === undefined
        ? undefined
        : new UnixSocket(new Fd(controlFd, "control of the parent process"));
    const places = { path, parent };
    stack.use(new DeviceControl(places, { device, service, loop, logger: loggerOf(context, options) }));
  }
  context.signal.addEventListener("abort", () => loop.stop());
  announce(context, place);
  if (!context.signal.aborted) await loop.run();
  if (context.signal.aborted) return statusOf(context.signal);
  if (service.failure !== undefined) throw service.failure;
  if (only && end?.kind === "failed") throw end.error;
  return 0;
}

const connectTimeoutOf = ({ connectTimeoutMs = DEFAULT_CONNECT_TIMEOUT_MS }: RunOptions) => ({
  connectTimeoutMs,
});

function serve(
  place: Place,
  device: VhostUserDevice,
  loop: EventLoop,
  options: ConstructorParameters<typeof ConnectingService>[3],
): Service {
  if ("connect" in place) return new ConnectingService(device, place.connect, loop, options);
  if ("socket" in place) return new DeviceService(device, UnixListener.listen(place.socket), loop, options);
  const fd = new Fd(place.fd, `fd ${place.fd} from the parent process`);
  if (place.listens) return new DeviceService(device, UnixListener.ofFd(fd), loop, options);
  const onEnd = (end: SessionEnd) => {
    options.onSessionEnd?.(end);
    loop.stop();
  };
  return new BackendSession(new UnixSocket(fd), device, loop, onEnd, options);
}

function announce({ output }: CommandContext, place: Place): void {
  if (output.json) output.line(toJson({ type: "ready", ...place }));
  else output.status(`ready ${describePlace(place)}`);
}

function statusOf(signal: AbortSignal): number {
  const { reason } = signal;
  const status = reason instanceof CancelledError ? reason.exitStatus : 1;
  return status === TERMINATED_STATUS ? 0 : status;
}
