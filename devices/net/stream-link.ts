import { PeerError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import {
  connectUnix,
  type EventLoop,
  type Fd,
  POLL,
  setNonBlocking,
  UnixListener,
  UnixSocket,
} from "../../src/sys/mod.ts";

/** Where the peer of a stream end is. */
export type StreamPlace =
  | { readonly connect: string }
  | { readonly listen: string }
  /** A connected socket. It is taken to be the very connection that a restored state was saved on. */
  | { readonly connected: Fd };

/** How long a peer that cannot be reached is left alone. */
const RETRY_MS = 500;

/** Keeps a connection to one peer: dials again, or takes the next one, when it is lost. */
export class StreamLink implements Disposable {
  readonly #listener: UnixListener | undefined;
  readonly #place: StreamPlace;
  #socket: UnixSocket | undefined;
  #cancelRetry: (() => void) | undefined;
  #active = false;
  #told = false;

  /** Listens, if that is what is asked for. @throws UsageError when the path is taken */
  constructor(
    place: StreamPlace,
    readonly loop: EventLoop,
    readonly logger: Logger,
    /** A peer is there. */
    readonly onUp: () => void,
  ) {
    this.#place = place;
    if ("listen" in place) this.#listener = UnixListener.listen(place.listen, 1);
    if (!("connected" in place)) return;
    this.#socket = new UnixSocket(place.connected);
    setNonBlocking(place.connected);
  }

  get socket(): UnixSocket | undefined {
    return this.#socket;
  }

  get label(): string {
    const place = this.#place;
    if ("connected" in place) return place.connected.label;
    return "listen" in place ? `stream at ${place.listen}` : `stream to ${place.connect}`;
  }

  setActive(active: boolean): void {
    this.#active = active;
    this.#cancelRetry?.();
    if (this.#listener !== undefined) this.#listen(this.#listener);
    else if (active && this.#socket === undefined) this.#connect();
  }

  /** The connection is of no use any more. */
  drop(why: string): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    this.logger.info(`${this.label}: ${why}`);
    this.#socket = undefined;
    this.loop.unwatch(socket.fd);
    socket[Symbol.dispose]();
    if (!this.#active) return;
    if (this.#listener !== undefined) this.#listen(this.#listener);
    else this.#dialLater();
  }

  [Symbol.dispose](): void {
    this.setActive(false);
    this.drop("closed");
    this.#listener?.[Symbol.dispose]();
  }

  /** One peer at a time: the next one waits in the backlog. */
  #listen(listener: UnixListener): void {
    const wanted = this.#active && this.#socket === undefined;
    if (wanted === this.loop.isWatched(listener.fd)) return;
    if (wanted) this.loop.watch(listener.fd, POLL.IN, () => this.#accept(listener));
    else this.loop.unwatch(listener.fd);
  }

  #accept(listener: UnixListener): void {
    this.#adopt(listener.accept());
    this.#listen(listener);
    this.onUp();
  }

  #connect(): void {
    if (!("connect" in this.#place)) return;
    try {
      this.#adopt(connectUnix(this.#place.connect));
      this.#told = false;
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      if (!this.#told) this.logger.warn(`${error.message}; tried again every ${RETRY_MS} ms`);
      this.#told = true;
      this.#dialLater();
      return;
    }
    this.onUp();
  }

  #dialLater(): void {
    this.#cancelRetry = this.loop.schedule(RETRY_MS, () => this.#connect());
  }

  #adopt(socket: UnixSocket): void {
    setNonBlocking(socket.fd);
    this.#socket = socket;
    this.logger.info(`${this.label}: connected`);
  }
}
