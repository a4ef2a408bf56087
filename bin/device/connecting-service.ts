import { ServedSessions, type ServeOptions, type VhostUserDevice } from "../../src/backend/mod.ts";
import { PeerError } from "../../src/errors.ts";
import { connectUnix, Deadline, type EventLoop } from "../../src/sys/mod.ts";

/** How often a front-end that is not there yet is looked for. */
const RETRY_MS = 50;

export interface ConnectOptions extends ServeOptions {
  /** How long a front-end that does not listen is waited for, at the start and after each session. */
  readonly connectTimeoutMs: number;
}

/** Serves a device to a front-end that listens; connects again when a session has ended, unless `once`. */
export class ConnectingService extends ServedSessions {
  /** Why it gave up, for the end of the program. */
  failure: PeerError | undefined;
  readonly #timeoutMs: number;

  constructor(
    device: VhostUserDevice,
    readonly path: string,
    loop: EventLoop,
    options: ConnectOptions,
  ) {
    super(device, loop, options);
    this.#timeoutMs = options.connectTimeoutMs;
    this.#connectSoon(0);
  }

  protected override goOn(): void {
    this.#connectSoon(RETRY_MS);
  }

  /** From the loop, so that it can be stopped by what comes of it. */
  #connectSoon(delayMs: number): void {
    this.loop.schedule(delayMs, () => this.#connect(new Deadline(this.#timeoutMs)));
  }

  #connect(deadline: Deadline): void {
    try {
      this.begin(connectUnix(this.path));
    } catch (error) {
      if (!(error instanceof PeerError && error.reconnect)) throw error;
      if (!deadline.expired) {
        this.loop.schedule(RETRY_MS, () => this.#connect(deadline));
        return;
      }
      const message = `no front-end within ${this.#timeoutMs} ms: nobody listens at ${this.path}; start the VMM, or give it more time with --connect-timeout-ms`;
      this.failure = new PeerError(message, { cause: error.cause, reconnect: true });
      this.loop.stop();
    }
  }
}
