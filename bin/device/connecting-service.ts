import { BackendSession, type ServeOptions, type VhostUserDevice } from "../../src/backend/mod.ts";
import { PeerError } from "../../src/errors.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import { connectUnix, Deadline, type EventLoop, type UnixSocket } from "../../src/sys/mod.ts";

/** How often a front-end that is not there yet is looked for. */
const RETRY_MS = 50;

export interface ConnectOptions extends ServeOptions {
  /** How long a front-end that does not listen is waited for, at the start and after each session. */
  readonly connectTimeoutMs: number;
}

/** Serves a device to a front-end that listens; connects again when a session has ended, unless `once`. */
export class ConnectingService implements Disposable {
  /** Why it gave up, for the end of the program. */
  failure: PeerError | undefined;
  readonly #logger: Logger;
  #session: BackendSession | undefined;
  #paused = false;

  constructor(
    readonly device: VhostUserDevice,
    readonly path: string,
    readonly loop: EventLoop,
    readonly options: ConnectOptions,
  ) {
    this.#logger = options.logger ?? silentLogger;
    this.#connectSoon(0);
  }

  get isConnected(): boolean {
    return this.#session !== undefined;
  }

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

  /** From the loop, so that it can be stopped by what comes of it. */
  #connectSoon(delayMs: number): void {
    this.loop.schedule(delayMs, () => this.#connect(new Deadline(this.options.connectTimeoutMs)));
  }

  #connect(deadline: Deadline): void {
    try {
      this.#serve(connectUnix(this.path));
    } catch (error) {
      if (!(error instanceof PeerError && error.reconnect)) throw error;
      if (!deadline.expired) {
        this.loop.schedule(RETRY_MS, () => this.#connect(deadline));
        return;
      }
      const message = `no front-end within ${this.options.connectTimeoutMs} ms: ${error.message}`;
      this.failure = new PeerError(message, { cause: error, reconnect: true });
      this.loop.stop();
    }
  }

  #serve(socket: UnixSocket): void {
    this.#logger.info("front-end connected", { ...socket.peerCredentials() });
    const onEnd: ConstructorParameters<typeof BackendSession>[3] = (end) => {
      this.#session = undefined;
      if (end.kind === "disconnected") this.#logger.info("front-end disconnected");
      else this.#logger.error(`session ended: ${end.error.message}`, { code: end.error.code });
      this.options.onSessionEnd?.(end);
      if (this.options.once) this.loop.stop();
      else this.#connectSoon(RETRY_MS);
    };
    this.#session = new BackendSession(socket, this.device, this.loop, onEnd, this.options);
    if (this.#paused) this.#session.pauseAll();
  }
}
