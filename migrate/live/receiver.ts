import { CancelledError, StateError, VhuError } from "../../src/errors.ts";
import { MAX_TOKEN_TRIES, TOKEN_LIFETIME_MS } from "../../src/limits.ts";
import type { Logger } from "../../src/logger.ts";
import type { OperationsLog } from "../operations/mod.ts";
import type { ArrivalPolicy } from "./arrival-policy.ts";
import { ArrivalRoom } from "./arrival-room.ts";
import { LiveServer, type ReceiverSecurity } from "./live-server.ts";
import { ownCertificate } from "./own-certificate.ts";
import { encodeToken, PairingToken } from "./pairing-token.ts";
import { type ReceiveReport, receiveMachine } from "./receive.ts";
import type { Certificates, HostPort } from "./security.ts";
import type { Session } from "./session.ts";

export interface ReceiverReady {
  readonly port: number;
  readonly token?: string | undefined;
  /** Why there is another token, where nobody has used the last one. */
  readonly why?: string | undefined;
}

export interface ReceiverOptions {
  readonly address: HostPort;
  readonly security:
    | { readonly kind: "token" | "insecure" }
    | { readonly kind: "certificates"; readonly certificates: Certificates };
  readonly policy: ArrivalPolicy;
  readonly version: string;
  readonly log: OperationsLog;
  readonly logger: Logger;
  readonly tokenLifetimeMs?: number | undefined;
  /** End after the first machine that was taken, or failed to be. */
  readonly once: boolean;
  /** So many machines may arrive at a time. */
  readonly atOnce?: number | undefined;
  readonly signal: AbortSignal;
  /** Listening; with the token to give to the sender, if there is one. Called again for each new token, with what the last one ended by. */
  readonly onReady: (ready: ReceiverReady) => void;
  readonly onProgress?:
    | ((progress: { readonly name: string; readonly doneBytes: number }) => void)
    | undefined;
  /** A machine runs here. */
  readonly onArrival: (report: ReceiveReport) => Promise<void>;
  /** How many arrive now, and have; each time that changes. */
  readonly onCount?: ((counts: { readonly arriving: number; readonly arrived: number }) => void) | undefined;
  /** One did not arrive. */
  readonly onFailure: (error: Error) => void;
}

/** A certificate outlives the tokens that go with it. */
const CERTIFICATE_MS = 365 * 24 * 3_600_000;

/** Takes machines until the signal, or with `once` until one was taken; then it ends with the error of a failed one. */
export async function runReceiver(options: ReceiverOptions): Promise<void> {
  const { address, version, logger, signal } = options;
  using tokens = options.security.kind === "token" ? new Tokens(options.tokenLifetimeMs) : undefined;
  const security: ReceiverSecurity =
    tokens === undefined
      ? (options.security as Exclude<ReceiverSecurity, { kind: "token" }>)
      : {
          ...{ kind: "token", certificate: tokens.certificate, token: () => tokens.current },
          onTokenClosed: () =>
            tokens.renew(false, `the last token is closed: ${MAX_TOKEN_TRIES} wrong ones were tried`),
        };
  const arrivals = new Arrivals(options);
  using server = await LiveServer.listen({
    ...{ address, security, version, logger, atOnce: options.atOnce },
    refusal: () =>
      options.once && arrivals.hasTaken ? "this receiver takes one machine, and has it" : undefined,
    onSession: (session) => {
      tokens?.renew(options.once);
      // Whoever only looked, or was cancelled, has used up the token: the next one needs another.
      arrivals.begin(session, () => tokens?.renew(false));
    },
  });
  const ready = (token?: string, why?: string) => options.onReady({ port: server.port, token, why });
  if (tokens === undefined) ready();
  else tokens.onToken = ready;
  await arrivals.over(signal);
}

/** The token that is good now. As a service, a new one follows each that was used or is too old. */
class Tokens implements Disposable {
  readonly certificate = ownCertificate(CERTIFICATE_MS);
  #current: PairingToken;
  #onToken: ((token: string, why?: string) => void) | undefined;
  #timer: Timer | undefined;

  constructor(readonly lifetimeMs = TOKEN_LIFETIME_MS) {
    this.#current = new PairingToken(undefined, lifetimeMs);
  }

  get current(): PairingToken {
    return this.#current;
  }

  set onToken(handler: (token: string, why?: string) => void) {
    this.#onToken = handler;
    this.#tell();
  }

  renew(once: boolean, why?: string): void {
    if (once) return;
    this.#current = new PairingToken(undefined, this.lifetimeMs);
    this.#tell(why);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #tell(why?: string): void {
    this.#onToken?.(encodeToken({ keyHash: this.certificate.keyHash, secret: this.#current.secret }), why);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#outlive(), this.lifetimeMs);
  }

  /** One that a machine arrives with needs no other. */
  #outlive(): void {
    if (this.#current.isUsed) return;
    this.renew(false, `the last token is closed: it was good for ${this.lifetimeMs / 60_000} minutes`);
  }
}

/** The machines that are arriving. */
class Arrivals {
  readonly #options: ReceiverOptions;
  readonly #room = new ArrivalRoom();
  readonly #running = new Set<Promise<void>>();
  readonly #first = Promise.withResolvers<void>();
  #taken = 0;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    this.#first.promise.catch(() => {});
  }

  get hasTaken(): boolean {
    return this.#taken > 0 || this.#running.size > 0;
  }

  /** @param onNothing Called where the receiver waits for another machine as if there had been none. */
  begin(session: Session, onNothing: () => void): void {
    const work = this.#take(session, this.#options.once ? onNothing : () => {});
    this.#running.add(work);
    this.#count();
    void work.then(() => {
      this.#running.delete(work);
      this.#count();
    });
  }

  #count(): void {
    this.#options.onCount?.({ arriving: this.#running.size, arrived: this.#taken });
  }

  /** Ctrl-C ends what is not handed over yet; what is, goes on to its end. */
  async over(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve(), { once: true });
    if (signal.aborted) resolve();
    await Promise.race(this.#options.once ? [promise, this.#first.promise] : [promise]);
    await Promise.all(this.#running);
    if (this.#options.once && this.#taken > 0) await this.#first.promise;
    else signal.throwIfAborted();
  }

  async #take(session: Session, onNothing: () => void): Promise<void> {
    const { policy, logger, log, signal, onProgress, onArrival, onFailure } = this.#options;
    logger.info(`a migration begins, from ${session.peer}`);
    try {
      const report = await receiveMachine(session, {
        log,
        policy,
        logger,
        room: this.#room,
        signal,
        onProgress,
      });
      if (report === undefined) return onNothing();
      this.#taken += 1;
      await onArrival(report);
      this.#first.resolve();
    } catch (error) {
      // Whatever went wrong with one machine ends no receiver that takes others.
      const failure = error instanceof Error ? error : new StateError(String(error));
      if (!(error instanceof VhuError)) logger.error(`a migration failed by a bug of vhu: ${failure.stack}`);
      onFailure(failure);
      // Who was only cancelled, or whose sender went away, has taken none: the receiver waits for the next.
      if (error instanceof CancelledError) onNothing();
      else this.#first.reject(failure);
    }
  }
}
