import { Connection, RequestServer } from "../connection/mod.ts";
import { VhuError } from "../errors.ts";
import { silentLogger } from "../logger.ts";
import { type EventLoop, POLL, type UnixListener, type UnixSocket } from "../sys/mod.ts";
import { BackendServer } from "./backend-server.ts";
import type { VhostUserDevice } from "./device.ts";
import { DeviceRequestHandler, type HandlerOptions } from "./device-request-handler.ts";

/** How a session ended: the front-end hung up between two messages, or something broke it. */
export type SessionEnd = { readonly kind: "disconnected" } | { readonly kind: "failed"; readonly error: VhuError };

/** One front-end's session with a device, served by a loop. Dispose of it to hang up. */
export class BackendSession implements Disposable {
  readonly handler: DeviceRequestHandler;
  readonly #connection: Connection;
  readonly #server: RequestServer;
  #ended = false;

  constructor(
    socket: UnixSocket,
    device: VhostUserDevice,
    readonly loop: EventLoop,
    readonly onEnd: (end: SessionEnd) => void,
    options: HandlerOptions = {},
  ) {
    this.#connection = new Connection(socket);
    this.handler = new DeviceRequestHandler(device, loop, options);
    const backend = new BackendServer(this.handler, this.handler.session, this.handler.table);
    this.#server = new RequestServer(this.#connection, backend, options.logger ?? silentLogger);
    loop.watch(socket.fd, POLL.IN, () => this.#onReadable());
  }

  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    this.loop.unwatch(this.#connection.socket.fd);
    this.handler[Symbol.dispose]();
    this.#connection[Symbol.dispose]();
  }

  #onReadable(): void {
    const { fd } = this.#connection.socket;
    try {
      const served = this.#server.serveOne(0, () => {
        if (!this.#ended) this.loop.modify(fd, POLL.IN);
      });
      if (served === "closed") this.#end({ kind: "disconnected" });
      // The next message waits until the late answer is out; a hang-up meanwhile still arrives.
      else if (served === "pending") this.loop.modify(fd, POLL.RDHUP);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#end({ kind: "failed", error });
    }
  }

  #end(end: SessionEnd): void {
    if (this.#ended) return;
    this[Symbol.dispose]();
    this.onEnd(end);
  }
}

export interface ServeOptions extends HandlerOptions {
  /** End after the first front-end instead of waiting for the next. */
  readonly once?: boolean | undefined;
}

/**
 * Serves a device at a listening socket: one front-end at a time, one after the other. A device has one VM; whoever
 * connects while another is served waits in the backlog.
 */
export class DeviceService implements Disposable {
  #session: BackendSession | undefined;

  constructor(
    readonly device: VhostUserDevice,
    readonly listener: UnixListener,
    readonly loop: EventLoop,
    readonly options: ServeOptions = {},
  ) {
    loop.watch(listener.fd, POLL.IN, () => this.#accept());
  }

  [Symbol.dispose](): void {
    this.loop.unwatch(this.listener.fd);
    this.#session?.[Symbol.dispose]();
    this.listener[Symbol.dispose]();
  }

  #accept(): void {
    const { logger = silentLogger, once } = this.options;
    const socket = this.listener.accept();
    logger.info("front-end connected", { ...socket.peerCredentials() });
    this.loop.modify(this.listener.fd, 0);
    this.#session = new BackendSession(
      socket,
      this.device,
      this.loop,
      (end) => {
        this.#session = undefined;
        if (end.kind === "disconnected") logger.info("front-end disconnected");
        else logger.error(`session ended: ${end.error.message}`, { code: end.error.code });
        if (once) this.loop.stop();
        else this.loop.modify(this.listener.fd, POLL.IN);
      },
      this.options,
    );
  }
}
