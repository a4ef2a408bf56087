import type { RequestChannel } from "../connection/mod.ts";
import { VhuError } from "../errors.ts";
import { MAX_PENDING_NOTIFICATIONS } from "../limits.ts";
import { type EventLoop, POLL } from "../sys/mod.ts";
import type { Message } from "../wire/mod.ts";

export type NotificationName = "CONFIG_CHANGE_MSG" | "VRING_CALL" | "VRING_ERR" | "IOTLB_MSG";
type NotificationMessage = Message<unknown, unknown>;

interface Pending {
  readonly message: NotificationMessage;
  readonly payload: object;
}

/**
 * Messages to a front-end that nobody waits for an answer to. None of them ever holds the control thread: what a full
 * socket does not take is kept, once for each different message, and sent when there is room. A front-end that was stopped
 * (SIGSTOP) finds one config change then, however many there were.
 */
export class Notifications implements Disposable {
  readonly #pending = new Map<string, Pending>();

  /** @param onLost is told what could not be sent, and why */
  constructor(
    readonly channel: RequestChannel,
    readonly loop: EventLoop,
    readonly onLost: (name: string, reason: string) => void,
  ) {}

  send(message: NotificationMessage, payload: object): void {
    if (this.channel.isBroken) return;
    if (this.#pending.size === 0 && this.#trySend({ message, payload })) return;
    if (this.channel.isBroken) return;
    const key = [message.name, ...Object.values(payload)].join();
    if (this.#pending.size >= MAX_PENDING_NOTIFICATIONS && !this.#pending.has(key)) {
      this.onLost(message.name, "the front-end does not read, and too much waits for it already");
      return;
    }
    this.#pending.set(key, { message, payload });
    const { fd } = this.channel.connection.socket;
    if (!this.loop.isWatched(fd)) this.loop.watch(fd, POLL.OUT, () => this.#flush());
  }

  /** Drops what waits. Returns the names of what that was. */
  clear(): Set<string> {
    const names = new Set([...this.#pending.values()].map(({ message }) => message.name));
    this.#pending.clear();
    this.loop.unwatch(this.channel.connection.socket.fd);
    return names;
  }

  [Symbol.dispose](): void {
    this.clear();
  }

  #flush(): void {
    for (const [key, pending] of this.#pending) {
      if (this.channel.isBroken) break;
      if (!this.#trySend(pending)) return;
      this.#pending.delete(key);
    }
    this.clear();
  }

  /** False when the socket has no room; what it will never take is told of, and counts as sent. */
  #trySend({ message, payload }: Pending): boolean {
    try {
      return this.channel.tryNotify(message, payload);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.onLost(message.name, error.message);
      return true;
    }
  }
}
