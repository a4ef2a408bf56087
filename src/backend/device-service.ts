import { VhuError } from "../errors.ts";
import { type EventLoop, POLL, type UnixListener, type UnixSocket } from "../sys/mod.ts";
import type { VhostUserDevice } from "./device.ts";
import { ServedSessions, type ServeOptions } from "./served-sessions.ts";

/** How long a listener rests after accept failed, e.g. for want of file descriptors. */
const ACCEPT_RETRY_MS = 200;

/**
 * Serves a device at a listening socket: one front-end at a time, one after the other. A device has one VM; whoever
 * connects while another is served waits in the backlog.
 */
export class DeviceService extends ServedSessions {
  constructor(
    device: VhostUserDevice,
    readonly listener: UnixListener,
    loop: EventLoop,
    options: ServeOptions = {},
  ) {
    super(device, loop, options);
    loop.watch(listener.fd, POLL.IN, () => this.#accept());
  }

  override [Symbol.dispose](): void {
    this.loop.unwatch(this.listener.fd);
    super[Symbol.dispose]();
    this.listener[Symbol.dispose]();
  }

  protected override goOn(): void {
    this.loop.modify(this.listener.fd, POLL.IN);
  }

  #accept(): void {
    this.loop.modify(this.listener.fd, 0);
    const socket = this.#tryAccept();
    if (socket !== undefined) this.begin(socket);
  }

  #tryAccept(): UnixSocket | undefined {
    try {
      return this.listener.accept();
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.logger.error(`a front-end could not be accepted: ${error.message}`, { code: error.code });
      this.loop.schedule(ACCEPT_RETRY_MS, () => {
        if (this.loop.isWatched(this.listener.fd)) this.goOn();
      });
      return undefined;
    }
  }
}
