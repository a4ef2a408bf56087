import { PeerError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import {
  disposeAll,
  type EventLoop,
  type Fd,
  type NativeBuffer,
  POLL,
  setNonBlocking,
  UnixListener,
  type UnixSocket,
  WOULD_BLOCK,
} from "../../src/sys/mod.ts";
import type { ConsoleEnd, ConsoleEndEvents, ConsoleInterest } from "./console-end.ts";

/**
 * A UNIX socket that one client at a time connects to. While there is none, output waits in the device, which stops
 * taking more from the guest when its buffer is full: nothing is lost, and a later client gets it all.
 */
export class SocketEnd implements ConsoleEnd {
  readonly #listener: UnixListener;
  #client: UnixSocket | undefined;
  #events: ConsoleEndEvents | undefined;
  #interest: ConsoleInterest = { input: false, output: false };

  /** @throws UsageError when the path is taken */
  constructor(
    path: string,
    readonly loop: EventLoop,
    readonly logger: Logger,
  ) {
    this.#listener = UnixListener.listen(path, 1);
    loop.watch(this.#listener.fd, POLL.IN, () => this.#accept());
  }

  get isOpen(): boolean {
    return this.#client !== undefined;
  }

  open(events: ConsoleEndEvents): void {
    this.#events = events;
  }

  listenFor(interest: ConsoleInterest): void {
    this.#interest = interest;
    if (this.#client === undefined) return;
    if (this.loop.isWatched(this.#client.fd)) this.loop.modify(this.#client.fd, this.#mask());
    // It hung up while no input was wanted: what it had sent is read now.
    else if (interest.input) this.#watch(this.#client);
  }

  read(buffer: NativeBuffer): number {
    const fds: Fd[] = [];
    const count = this.#transfer((client) => client.receive(buffer, 0, buffer.sizeBytes, fds, true));
    disposeAll(fds);
    return count;
  }

  write(buffer: NativeBuffer, offset: number, sizeBytes: number): number {
    return this.#transfer((client) => client.send(buffer, offset, sizeBytes));
  }

  [Symbol.dispose](): void {
    this.#dropClient();
    this.loop.unwatch(this.#listener.fd);
    this.#listener[Symbol.dispose]();
  }

  #accept(): void {
    const client = this.#listener.accept();
    setNonBlocking(client.fd);
    this.#client = client;
    // The next client waits in the backlog.
    this.loop.modify(this.#listener.fd, 0);
    this.#watch(client);
    this.logger.info("console client connected", { ...client.peerCredentials() });
    this.#events?.onOpenChange();
    if (this.#interest.output) this.#events?.onOutput();
  }

  #watch(client: UnixSocket): void {
    this.loop.watch(client.fd, this.#mask(), (ready) => this.#onReady(ready));
  }

  #onReady(ready: number): void {
    if ((ready & POLL.OUT) !== 0) this.#events?.onOutput();
    if ((ready & POLL.IN) !== 0) this.#events?.onInput();
    // A hang-up is reported even when nothing is asked for. What the client sent before is read first, later if need be.
    const gone = (ready & (POLL.HUP | POLL.ERR)) !== 0;
    if (!gone || (ready & POLL.IN) !== 0 || this.#client === undefined) return;
    if (this.#interest.input) this.#hangUp();
    else this.loop.unwatch(this.#client.fd);
  }

  #mask(): number {
    return (this.#interest.input ? POLL.IN : 0) | (this.#interest.output ? POLL.OUT : 0);
  }

  /** The bytes moved; 0 when nothing can be moved now, or the client is gone. */
  #transfer(move: (client: UnixSocket) => number): number {
    if (this.#client === undefined) return 0;
    let count = 0;
    try {
      count = move(this.#client);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
    }
    if (count === 0) this.#hangUp();
    return count === WOULD_BLOCK ? 0 : count;
  }

  #hangUp(): void {
    if (this.#client === undefined) return;
    this.logger.info("console client disconnected");
    this.#dropClient();
    this.loop.modify(this.#listener.fd, POLL.IN);
    this.#events?.onOpenChange();
  }

  #dropClient(): void {
    if (this.#client === undefined) return;
    this.loop.unwatch(this.#client.fd);
    this.#client[Symbol.dispose]();
    this.#client = undefined;
  }
}
