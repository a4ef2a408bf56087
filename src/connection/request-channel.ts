import { PeerError, ProtocolError, StateError, VhuError } from "../errors.ts";
import { DEFAULT_REQUEST_TIMEOUT_MS } from "../limits.ts";
import { Deadline, type Fd } from "../sys/mod.ts";
import { checkReplyHeader, headerFlag, type Message, payloads } from "../wire/mod.ts";
import type { Connection, Received } from "./connection.ts";
import type { ReceivedFds } from "./received-fds.ts";

export interface RequestChannelOptions {
  /** How long a request may take to be answered, unless the call says otherwise. */
  readonly requestTimeoutMs?: number;
  /** Run again and again while a reply is awaited, with the milliseconds left: serves what the peer may need first. */
  readonly whileWaiting?: ((remainingMs: number) => void) | undefined;
}

export interface CallOptions {
  readonly fds?: readonly Fd[];
  readonly timeoutMs?: number;
}

export interface Answer<R> {
  readonly reply: R;
  /** To be disposed of by the caller. */
  readonly fds: ReceivedFds;
}

/**
 * The asking side of a connection: sends requests and takes their answers in order.
 *
 * After a reply that did not come in time or did not fit, nobody knows which answer belongs to which request: the channel
 * is broken then and every further call says so.
 */
export class RequestChannel implements Disposable {
  /** True once REPLY_ACK was negotiated: then requests without a reply body are acknowledged. */
  replyAck = false;
  readonly #timeoutMs: number;
  whileWaiting: ((remainingMs: number) => void) | undefined;
  #waiting = false;
  #broken: Error | undefined;
  /** Whose answers nobody waits for any more, in the order in which they will come. */
  readonly #abandoned: { readonly number: number; readonly name: string }[] = [];

  /** @param connection becomes the channel's own */
  constructor(
    readonly connection: Connection,
    options: RequestChannelOptions = {},
  ) {
    this.#timeoutMs = options.requestTimeoutMs ?? DEFAULT_REQUEST_TIMEOUT_MS;
    this.whileWaiting = options.whileWaiting;
  }

  /** True after a failure that left it unknown which answer belongs to which request: no call will succeed any more. */
  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  /** True while an answer is awaited: input on the socket is that answer then. */
  get isWaiting(): boolean {
    return this.#waiting;
  }

  /** Sends a request that has a reply body, and waits for it. The caller owns the fds of the answer. */
  call<P, R>(message: Message<P, R>, payload: P, options: CallOptions = {}): Answer<R> {
    this.#send(message, payload, 0, options.fds);
    return this.#receive(message, options.timeoutMs ?? this.#timeoutMs);
  }

  /**
   * As `call`, but lets the event loop turn while it waits: for answers that may take long. When the wait is aborted, the
   * channel can go on: the answer, which still comes, is dropped by whoever meets it.
   */
  async callAsync<P, R>(
    message: Message<P, R>,
    payload: P,
    options: CallOptions & { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Answer<R>> {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs;
    this.#send(message, payload, 0, options.fds);
    this.#waiting = true;
    const deadline = new Deadline(timeoutMs);
    const { signal } = options;
    try {
      for (;;) {
        const frame = await this.connection.receiveAsync(deadline.remainingMs, signal);
        if (!this.#dropAbandoned(frame)) return this.#accept(message, frame, timeoutMs);
      }
    } catch (error) {
      if (!signal?.aborted || error !== signal.reason) throw this.#break(error);
      this.#abandoned.push(message);
      throw error;
    } finally {
      this.#waiting = false;
    }
  }

  /**
   * Sends a request without a reply body. With REPLY_ACK it waits for the acknowledgement.
   * @throws PeerError when the peer answers with a failure
   */
  send<P>(message: Message<P, unknown>, payload: P, options: CallOptions = {}): void {
    this.#send(message, payload, this.replyAck ? headerFlag.NEED_REPLY : 0, options.fds);
    if (!this.replyAck) return;
    const answer = this.#receive(
      { ...message, reply: payloads.value64, replyFds: { min: 0, max: 0 } },
      options.timeoutMs ?? this.#timeoutMs,
    );
    answer.fds[Symbol.dispose]();
    if (answer.reply.value !== 0n) {
      throw new PeerError(`the peer refused ${message.name} (it answered ${answer.reply.value})`, {
        details: { request: message.name, answer: answer.reply.value },
      });
    }
  }

  /**
   * Sends a request without asking for an acknowledgement even where REPLY_ACK was negotiated, and without ever waiting for
   * the peer. Returns false, with nothing sent, when the socket has no room.
   */
  tryNotify<P>(message: Message<P, unknown>, payload: P): boolean {
    this.#requireWhole(message.name);
    try {
      return this.connection.trySend(message.number, headerFlag.VERSION, message.payload.encode(payload));
    } catch (error) {
      throw this.#break(error);
    }
  }

  /** There is input and no call waits: true when that is the answer of one that was aborted, false when the peer hung up. */
  takeLateAnswer(): boolean {
    if (this.#abandoned.length === 0) return false;
    try {
      const frame = this.connection.receive(0);
      return frame === "nothing" || this.#dropAbandoned(frame);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#break(error);
      return false;
    }
  }

  [Symbol.dispose](): void {
    this.connection[Symbol.dispose]();
  }

  #requireWhole(name: string): void {
    if (this.#broken !== undefined) {
      throw new StateError(
        `cannot send ${name}: the connection is unusable since an earlier request failed`,
        {
          cause: this.#broken,
        },
      );
    }
  }

  #send<P>(message: Message<P, unknown>, payload: P, flags: number, fds: readonly Fd[] = []): void {
    this.#requireWhole(message.name);
    // Whoever serves the peer's requests while an answer is awaited must not ask in between: it would take that answer.
    if (this.#waiting) throw new StateError(`cannot send ${message.name} while another answer is awaited`);
    const encoded = message.payload.encode(payload);
    try {
      this.connection.send(message.number, headerFlag.VERSION | flags, encoded, fds);
    } catch (error) {
      // A part of it may be on its way: nothing that follows would begin where the peer expects a header.
      throw this.#break(error);
    }
  }

  #receive<R>(message: Message<never, R> | Message<unknown, R>, timeoutMs: number): Answer<R> {
    this.#waiting = true;
    const deadline = new Deadline(timeoutMs);
    try {
      for (;;) {
        const frame =
          this.whileWaiting === undefined
            ? this.connection.receive(deadline.remainingMs)
            : this.#turnUntil(deadline);
        if (!this.#dropAbandoned(frame)) return this.#accept(message, frame, timeoutMs);
      }
    } catch (error) {
      throw this.#break(error);
    } finally {
      this.#waiting = false;
    }
  }

  /** True when it was the answer of a call whose wait was aborted. */
  #dropAbandoned(frame: Received): boolean {
    if (typeof frame === "string") return false;
    const message = this.#abandoned.shift();
    if (message === undefined) return false;
    frame.fds[Symbol.dispose]();
    checkReplyHeader({ ...frame, size: frame.payload.length }, message.number, undefined, message.name);
    return true;
  }

  #turnUntil(deadline: Deadline): Received {
    for (;;) {
      const received = this.connection.receive(0);
      if (received !== "nothing" || deadline.expired) return received;
      this.whileWaiting!(deadline.remainingMs);
    }
  }

  #accept<R>(
    message: Message<never, R> | Message<unknown, R>,
    frame: Received,
    timeoutMs: number,
  ): Answer<R> {
    if (frame === "closed") {
      throw new PeerError(`the peer hung up instead of answering ${message.name}`, { reconnect: true });
    }
    if (frame === "nothing") {
      throw new PeerError(`no answer to ${message.name} within ${timeoutMs} ms`, { reconnect: true });
    }
    try {
      checkReplyHeader({ ...frame, size: frame.payload.length }, message.number, undefined, message.name);
      frame.fds.check(`${message.name} (reply)`, message.replyFds.min, message.replyFds.max);
      if (message.reply === undefined) throw new ProtocolError("has no reply body", message.name);
      return { reply: message.reply.decode(frame.payload, `${message.name} (reply)`), fds: frame.fds };
    } catch (error) {
      frame.fds[Symbol.dispose]();
      throw error;
    }
  }

  #break(error: unknown): Error {
    this.#broken = error as Error;
    return this.#broken;
  }
}
