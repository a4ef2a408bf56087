import { type Logger, silentLogger } from "../logger.ts";
import type { EventLoop, UnixSocket } from "../sys/mod.ts";
import { BackendSession, type SessionEnd } from "./backend-session.ts";
import type { VhostUserDevice } from "./device.ts";
import type { HandlerOptions } from "./device-request-handler.ts";

export interface ServeOptions extends HandlerOptions {
  /** End after the first front-end instead of waiting for the next. */
  readonly once?: boolean | undefined;
  /** Called at the end of each session, after it was logged. */
  readonly onSessionEnd?: ((end: SessionEnd) => void) | undefined;
}

/**
 * The sessions of one device with its front-ends, one at a time, and whether the device is held. How a front-end comes is the
 * business of those who extend it.
 */
export abstract class ServedSessions implements Disposable {
  protected readonly logger: Logger;
  #session: BackendSession | undefined;
  #paused = false;

  constructor(
    readonly device: VhostUserDevice,
    readonly loop: EventLoop,
    readonly options: ServeOptions = {},
  ) {
    this.logger = options.logger ?? silentLogger;
  }

  get isConnected(): boolean {
    return this.#session !== undefined;
  }

  /** Stops the device's work on all rings, those of the next front-end, too, until `resumeAll`. */
  pauseAll(): void {
    this.#session?.pauseAll();
    this.#paused = true;
  }

  resumeAll(): void {
    this.#paused = false;
    this.#session?.resumeAll();
  }

  [Symbol.dispose](): void {
    this.#session?.[Symbol.dispose]();
  }

  /** Takes the socket of a front-end. */
  protected begin(socket: UnixSocket): void {
    this.logger.info("front-end connected", { ...socket.peerCredentials() });
    const onEnd = (end: SessionEnd) => this.#onEnd(end);
    this.#session = new BackendSession(socket, this.device, this.loop, onEnd, this.options);
    if (this.#paused) this.#session.pauseAll();
  }

  /** The front-end has gone, and there is to be another. */
  protected abstract goOn(): void;

  #onEnd(end: SessionEnd): void {
    this.#session = undefined;
    if (end.kind === "disconnected") this.logger.info("front-end disconnected");
    else this.logger.error(`session ended: ${end.error.message}`, { code: end.error.code });
    this.options.onSessionEnd?.(end);
    if (this.options.once) this.loop.stop();
    else this.goOn();
  }
}
