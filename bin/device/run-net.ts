import { NetDevice, type NetEnd, parseMac, StreamEnd, TapEnd } from "../../devices/net/mod.ts";
import { UsageError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import { disposeAll, EventLoop, Fd, Tap } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import { capabilities } from "./capabilities.ts";
import { loggerOf } from "./device-logger.ts";
import { placeOf } from "./place.ts";
import type { RunOptions } from "./run-options.ts";
import { serveDevice } from "./serve-device.ts";

export interface RunNetOptions extends RunOptions {
  readonly tap?: string;
  readonly tapFd?: readonly number[];
  readonly stream?: string;
  readonly streamListen?: string;
  readonly streamFd?: number;
  readonly queuePairs?: number;
  readonly mac?: string;
  readonly mtu?: number;
  readonly maxBytes?: number;
  readonly period?: number;
}

const DEFAULT_PERIOD_MS = 1000;

/** `vhu device run net`. Returns the exit status. */
export async function runNet(context: CommandContext, options: RunNetOptions): Promise<number> {
  if (options.printCapabilities) {
    context.output.line(toJson(capabilities.net));
    return 0;
  }
  placeOf(options);
  const { mtu, maxBytes, period = DEFAULT_PERIOD_MS } = options;
  const mac = options.mac === undefined ? undefined : parseMac(options.mac);
  const rateLimit = maxBytes === undefined ? undefined : { bytes: maxBytes, periodMs: period };
  const logger = loggerOf(context, options);
  using loop = new EventLoop();
  using end = openEnd(options, loop, logger);
  const device = new NetDevice(end, loop, { mac, mtu, rateLimit, logger });
  return await serveDevice(context, device, loop, options);
}

function openEnd(options: RunNetOptions, loop: EventLoop, logger: Logger): NetEnd {
  const { tap, tapFd, stream, streamListen, streamFd, queuePairs = 1 } = options;
  if ([tap, tapFd, stream, streamListen, streamFd].filter((end) => end !== undefined).length !== 1) {
    throw new UsageError(
      "give the device one end: --tap NAME, --tap-fd N, --stream PATH, --stream-listen PATH or --stream-fd N",
    );
  }
  if (tap !== undefined) return tapEnd(Tap.open(tap, queuePairs), loop, logger);
  if (queuePairs !== 1)
    throw new UsageError("--queue-pairs goes with --tap only; give --tap-fd once for each pair");
  if (tapFd !== undefined) return tapEnd(givenTaps(tapFd), loop, logger);
  if (stream !== undefined) return new StreamEnd({ connect: stream }, loop, logger);
  if (streamListen !== undefined) return new StreamEnd({ listen: streamListen }, loop, logger);
  const connected = new Fd(streamFd!, `fd ${streamFd} from the parent process`);
  return new StreamEnd({ connected }, loop, logger);
}

function tapEnd(taps: readonly Tap[], loop: EventLoop, logger: Logger): NetEnd {
  try {
    return new TapEnd(taps, loop, logger);
  } catch (error) {
    disposeAll(taps);
    throw error;
  }
}

function givenTaps(numbers: readonly number[]): Tap[] {
  using stack = new DisposableStack();
  const taps = numbers.map((number) =>
    stack.use(Tap.fromFd(new Fd(number, `fd ${number} from the parent process`))),
  );
  stack.move();
  return taps;
}
