import { ProtocolError, VhuError } from "../errors.ts";
import { type Logger, silentLogger } from "../logger.ts";
import { disposeAll, type Fd } from "../sys/mod.ts";
import { checkRequestHeader, headerFlag, type Message, payloads, REPLY_FLAGS } from "../wire/mod.ts";
import type { Connection, Frame } from "./connection.ts";
import type { ReceivedFds } from "./received-fds.ts";

/** A reply body, with fds that are closed once they were sent. */
export interface ReplyBody {
  readonly body: unknown;
  readonly fds?: readonly Fd[];
}

/** An answer that comes later: no other message is read until `resolve` was called. */
export class PendingReply {
  #onReply: ((reply: ReplyBody) => void) | undefined;
  #reply: ReplyBody | undefined;

  resolve(reply: ReplyBody): void {
    this.#reply = reply;
    this.#onReply?.(reply);
  }

  /** Calls `onReply` with the reply, now if it is there. */
  whenResolved(onReply: (reply: ReplyBody) => void): void {
    this.#onReply = onReply;
    if (this.#reply !== undefined) onReply(this.#reply);
  }
}

/** What handling a message gives: a reply body, nothing (then an acknowledgement if asked for), or a promise of a body. */
export type Outcome = ReplyBody | undefined | PendingReply;

export interface RequestHandlers {
  /** The messages of the dialect, by number. */
  readonly messages: ReadonlyMap<number, Message>;
  /** True once REPLY_ACK was negotiated. */
  readonly replyAck: boolean;
  /** @throws ProtocolError when the message is not legal with what was negotiated */
  checkLegal(message: Message): void;
  handle(message: Message, payload: unknown, fds: ReceivedFds): Outcome;
  /** The body that says "failed" for messages that always have one; undefined where the protocol has none. */
  failure(message: Message): unknown;
  /**
   * True when a message is none, but the peer's confirmation of the reply that it got to the message before (postcopy).
   * @throws ProtocolError when a confirmation is due and this is not one
   */
  confirms?(request: number, payload: Uint8Array): boolean;
}

export type Served = "handled" | "nothing" | "closed" | "pending";

/**
 * The answering side of a connection: one message in, one answer out. Synchronous; a driver calls it when there is input.
 *
 * Refusal: a message that asks for an acknowledgement gets a non-zero one, a message with a reply body gets its own
 * error form, and the connection stays. Anything else closes it (the error is thrown): what the peer believes is unknown.
 */
export class RequestServer {
  #pending = false;

  constructor(
    readonly connection: Connection,
    readonly handlers: RequestHandlers,
    readonly logger: Logger = silentLogger,
  ) {}

  /**
   * Serves one message, waiting for it for up to `timeoutMs`. `onLateAnswer` is called once a late answer was sent, or
   * with the error that sending it met.
   */
  serveOne(timeoutMs = 0, onLateAnswer: (error?: VhuError) => void = () => {}): Served {
    if (this.#pending) return "pending";
    const frame = this.connection.receive(timeoutMs);
    if (frame === "closed" || frame === "nothing") return frame;
    using _fds = frame.fds;
    const message = this.handlers.messages.get(frame.request);
    checkRequestHeader({ ...frame, size: frame.payload.length }, nameOf(message, frame.request));
    const wantsAck = (frame.flags & headerFlag.NEED_REPLY) !== 0 && this.handlers.replyAck;
    let outcome: Outcome;
    try {
      if (this.handlers.confirms?.(frame.request, frame.payload)) outcome = undefined;
      else outcome = this.#handle(message, frame);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#refuse(message, frame.request, wantsAck, error);
      return "handled";
    }
    return this.#answer(message!, outcome, wantsAck, onLateAnswer);
  }

  #handle(message: Message | undefined, frame: Frame): Outcome {
    if (message === undefined)
      throw new ProtocolError("is not a message of this dialect", `message ${frame.request}`);
    this.handlers.checkLegal(message);
    frame.fds.check(message.name, message.fds.min, message.fds.max);
    return this.handlers.handle(message, message.payload.decode(frame.payload, message.name), frame.fds);
  }

  #answer(
    message: Message,
    outcome: Outcome,
    wantsAck: boolean,
    onLateAnswer: (error?: VhuError) => void,
  ): Served {
    if (outcome instanceof PendingReply) return this.#answerLater(message, outcome, onLateAnswer);
    if (outcome !== undefined) this.#reply(message, outcome);
    else if (wantsAck) this.#acknowledge(message.number, 0n);
    return "handled";
  }

  #answerLater(message: Message, pending: PendingReply, onLateAnswer: (error?: VhuError) => void): Served {
    this.#pending = true;
    pending.whenResolved((reply) => {
      this.#pending = false;
      try {
        this.#reply(message, reply);
      } catch (error) {
        if (!(error instanceof VhuError)) throw error;
        return onLateAnswer(error);
      }
      onLateAnswer();
    });
    return this.#pending ? "pending" : "handled";
  }

  #reply(message: Message, reply: ReplyBody): void {
    const fds = reply.fds ?? [];
    try {
      this.connection.send(message.number, REPLY_FLAGS, message.reply!.encode(reply.body), fds);
    } finally {
      disposeAll(fds);
    }
  }

  #acknowledge(request: number, value: bigint): void {
    this.connection.send(request, REPLY_FLAGS, payloads.value64.encode({ value }));
  }

  #refuse(message: Message | undefined, request: number, wantsAck: boolean, error: VhuError): void {
    const name = nameOf(message, request);
    const body = message?.replyRule === "always" ? this.handlers.failure(message) : undefined;
    if (body === undefined && !(wantsAck && message?.replyRule !== "always")) throw error;
    this.logger.warn(`refused ${name}: ${error.message}`, { code: error.code });
    if (body !== undefined) this.#reply(message!, { body });
    else this.#acknowledge(request, 1n);
  }
}

function nameOf(message: Message | undefined, request: number): string {
  return message?.name ?? `message ${request}`;
}
