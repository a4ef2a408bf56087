import { Connection, RequestServer, RestTimer } from "../connection/mod.ts";
import { VhuError } from "../errors.ts";
import { silentLogger } from "../logger.ts";
import { type EventLoop, POLL, type UnixSocket } from "../sys/mod.ts";
import { BackendServer } from "./backend-server.ts";
import type { VhostUserDevice } from "./device.ts";
import { DeviceRequestHandler, type HandlerOptions } from "./device-request-handler.ts";

/** How a session ended: the front-end hung up between two messages, or something broke it. */
export type SessionEnd =
  | { readonly kind: "disconnected" }
  | { readonly kind: "failed"; readonly error: VhuError };

const GONE = POLL.RDHUP | POLL.HUP | POLL.ERR;

/** One front-end's session with a device, served by a loop. Dispose of it to hang up. */
export class BackendSession implements Disposable {
  readonly handler: DeviceRequestHandler;
  readonly #connection: Connection;
  readonly #server: RequestServer;
  readonly #restTimer: RestTimer;
  #ended = false;
  #answersLate = false;

  /** Takes the socket. */
  constructor(
    socket: UnixSocket,
    device: VhostUserDevice,
    readonly loop: EventLoop,
    readonly onEnd: (end: SessionEnd) => void,
    options: HandlerOptions = {},
  ) {
    using stack = new DisposableStack();
    this.#connection = stack.use(new Connection(socket, options));
    this.handler = stack.use(new DeviceRequestHandler(device, loop, options));
    const backend = new BackendServer(this.handler, this.handler.session, this.handler.table);
    this.#server = new RequestServer(this.#connection, backend, options.logger ?? silentLogger);
    this.#restTimer = new RestTimer(loop, this.#connection, () => this.#onReady(0));
    loop.watch(socket.fd, POLL.IN, (ready) => this.#onReady(ready));
    stack.move();
  }

  get isConnected(): boolean {
    return !this.#ended;
  }

  /** Stops the device's work on all rings until `resumeAll`; the front-end's requests are still answered. */
  pauseAll(): void {
    this.handler.pauseAll();
  }

  resumeAll(): void {
    if (!this.#ended) this.handler.resumeAll();
  }

  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    this.loop.unwatch(this.#connection.socket.fd);
    this.#restTimer[Symbol.dispose]();
    this.handler[Symbol.dispose]();
    this.#connection[Symbol.dispose]();
  }

  #onReady(ready: number): void {
    if (this.#answersLate) {
      if ((ready & GONE) !== 0) this.#end({ kind: "disconnected" });
      return;
    }
    try {
      const served = this.#server.serveOne(0, (error) => this.#onLateAnswer(error));
      if (served === "closed") this.#end({ kind: "disconnected" });
      else if (served === "nothing") this.#restTimer.arm();
      else if (served === "pending") {
        // The next message waits until the late answer is out; a hang-up meanwhile still arrives.
        this.#answersLate = true;
        this.loop.modify(this.#connection.socket.fd, POLL.RDHUP);
      }
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#end({ kind: "failed", error });
    }
  }

  #onLateAnswer(error: VhuError | undefined): void {
    if (this.#ended) return;
    if (error !== undefined) {
      this.#end({ kind: "failed", error });
      return;
    }
    this.#answersLate = false;
    this.loop.modify(this.#connection.socket.fd, POLL.IN);
  }

  #end(end: SessionEnd): void {
    if (this.#ended) return;
    this[Symbol.dispose]();
    this.onEnd(end);
  }
}
