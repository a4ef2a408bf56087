import { FormatError, PeerError } from "../../src/errors.ts";
import { MAX_LIVE_UNREAD_BYTES, MAX_LIVE_WAITING_MESSAGES } from "../../src/limits.ts";
import { type Frame, FrameType } from "./frame.ts";
import type { Link } from "./link.ts";
import { decodeMessage, encodeMessage, type LiveMessage, liveMessage } from "./messages.ts";
import { inTime, PATIENCE, type Patience } from "./patience.ts";
import { ReliableStream } from "./reliable-stream.ts";
import { SendWindow } from "./send-window.ts";
import { asVhuError, RemoteError } from "./session-error.ts";

export interface SessionIdentity {
  readonly id: string;
  readonly secret: string;
  /** Data streams, each with a connection of its own beside that of the messages. */
  readonly streams: number;
  /** How long a broken connection may be missing. */
  readonly retryMs: number;
}

/**
 * One migration's conversation: numbered streams over connections that may break and come again. The same on both sides.
 */
export class Session implements Disposable {
  readonly streams: readonly ReliableStream[];
  readonly #links: (Link | undefined)[];
  readonly #timers: (Timer | undefined)[];
  readonly #tails: Promise<void>[];
  readonly #queued: number[];
  readonly #unreadBytes: number[];
  readonly #sending: Promise<void>[];
  readonly #waitingToSend: number[];
  readonly #windows: readonly SendWindow[];
  readonly #messages: LiveMessage[] = [];
  #waiting: (() => void)[] = [];
  #failure: Error | undefined;
  readonly #failed = new AbortController();
  #reconnections = 0;
  /** All was said: a connection that ends now is no loss. */
  #isSaid = false;
  #pastBytes = 0;
  #progressMs = 0;
  /** Other limits are for tests. */
  patience: Patience = PATIENCE;
  /** Called for each frame of memory or state, in the order of its stream; set before any may come. */
  onData: ((frame: Frame) => Promise<void> | undefined) | undefined;
  /** Called when a connection broke; the sender then makes a new one. */
  onBroken: ((stream: number, cause: Error) => void) | undefined;

  constructor(readonly identity: SessionIdentity) {
    const count = identity.streams + 1;
    this.streams = Array.from({ length: count }, (_, number) => new ReliableStream(number));
    this.#links = new Array(count).fill(undefined);
    this.#timers = new Array(count).fill(undefined);
    this.#tails = new Array(count).fill(Promise.resolve());
    this.#queued = new Array(count).fill(0);
    this.#unreadBytes = new Array(count).fill(0);
    this.#sending = new Array(count).fill(Promise.resolve());
    this.#waitingToSend = new Array(count).fill(0);
    this.#windows = Array.from({ length: count }, () => new SendWindow());
  }

  get failure(): Error | undefined {
    return this.#failure;
  }
  /** Aborted with what the session failed with. */
  get signal(): AbortSignal {
    return this.#failed.signal;
  }
  /** How often a broken connection was taken up again. */
  get reconnections(): number {
    return this.#reconnections;
  }
  /** On the wire, in both directions, over all connections. */
  get wireBytes(): number {
    return this.#links.reduce((sum, link) => sum + bytesOf(link), this.#pastBytes);
  }
  get peer(): string {
    return this.#links[0]?.peer ?? "the peer";
  }

  /** Gives a stream a connection, on which the peer has all up to `lastReceived`; what is missing goes out again. */
  attach(number: number, link: Link, lastReceived: number): void {
    const stream = this.streams[number];
    if (stream === undefined) throw new FormatError(`the session has no stream ${number}`, "attach");
    const missing = stream.after(lastReceived);
    const old = this.#links[number];
    if (old !== undefined || this.#timers[number] !== undefined) this.#reconnections += 1;
    this.#pastBytes += bytesOf(old);
    old?.[Symbol.dispose]();
    clearTimeout(this.#timers[number]);
    this.#timers[number] = undefined;
    this.#links[number] = link;
    // The acknowledgement may have been lost with the old connection.
    if (stream.lastApplied > 0) link.say(FrameType.applied, undefined, number, stream.lastApplied);
    for (const bytes of missing) link.write(bytes);
    link.listen(
      (frame) => this.#onFrame(number, frame),
      (cause) => this.#onEnd(number, link, cause),
    );
  }

  hasLink(number: number): boolean {
    return this.#links[number] !== undefined;
  }

  /** `plainBytes` are what it is when the peer has unpacked it. Waits for room in the stream; then the frame will arrive, once and in its order, or the session fails. */
  async send(number: number, type: number, payload: Uint8Array, plainBytes = payload.length): Promise<void> {
    const before = this.#sending[number] as Promise<void>;
    const isFirst = this.#waitingToSend[number] === 0;
    if (isFirst && this.hasRoom(number)) return this.#sendNow(number, type, payload, plainBytes);
    this.#waitingToSend[number] = (this.#waitingToSend[number] ?? 0) + 1;
    const mine = before.then(async () => {
      try {
        const room = () => this.hasRoom(number);
        if (!room()) await this.#inTime("stallMs", undefined, (signal) => this.#until(room, signal));
        this.#sendNow(number, type, payload, plainBytes);
      } finally {
        this.#waitingToSend[number] = (this.#waitingToSend[number] ?? 1) - 1;
      }
    });
    this.#sending[number] = mine.catch(() => {});
    await mine;
  }

  hasRoom(number: number): boolean {
    return this.fillOf(number) < 1;
  }

  /** How full the stream is, from 0 to 1 and a little more. */
  fillOf(number: number): number {
    return (this.#windows[number] as SendWindow).fill;
  }

  #sendNow(number: number, type: number, payload: Uint8Array, plainBytes: number): void {
    if (this.#failure !== undefined) throw this.#failure;
    const stream = this.streams[number] as ReliableStream;
    const bytes = stream.send(type, payload);
    (this.#windows[number] as SendWindow).sent(stream.lastSent, bytes.length, plainBytes);
    this.#links[number]?.write(bytes);
  }

  say(message: LiveMessage): Promise<void> {
    return this.send(0, FrameType.message, encodeMessage(message));
  }

  /** The next message, which must be of this kind. @throws what the session failed with, FormatError; PeerError when it does not come */
  async expect<Kind extends LiveMessage["kind"]>(
    kind: Kind,
    signal?: AbortSignal,
    patience?: keyof Patience,
  ): Promise<Extract<LiveMessage, { kind: Kind }>> {
    const message = await this.next(signal, patience);
    if (message.kind === kind) return message as Extract<LiveMessage, { kind: Kind }>;
    throw new FormatError(`"${message.kind}" came where "${kind}" was due`, "session");
  }

  async next(signal?: AbortSignal, patience: keyof Patience = "stallMs"): Promise<LiveMessage> {
    const isHere = () => this.#messages.length > 0;
    if (!isHere()) await this.#inTime(patience, signal, (inner) => this.#until(isHere, inner));
    return this.#messages.shift() as LiveMessage;
  }

  /** The next word of a hand-over: the user's Ctrl-C only shortens the wait for who runs the machine. */
  async lastWord(user: AbortSignal | undefined): Promise<LiveMessage> {
    const isHere = () => this.#messages.length > 0;
    const limitMs = () => this.patience[user?.aborted ? "lastWordMs" : "handOverMs"];
    if (!isHere()) await this.#inTime(limitMs, undefined, (inner) => this.#until(isHere, inner));
    return this.#messages.shift() as LiveMessage;
  }

  /** Until the peer has applied all that was sent, or `timeoutMs` is over. */
  async settled(timeoutMs: number, user?: AbortSignal): Promise<boolean> {
    const signal = AbortSignal.timeout(timeoutMs);
    const isSettled = () => this.streams.every((stream) => stream.lastAcknowledged >= stream.lastSent);
    try {
      await this.#until(isSettled, user === undefined ? signal : AbortSignal.any([signal, user]));
      return true;
    } catch {
      user?.throwIfAborted();
      return false;
    }
  }

  /** Until all frames of the data streams up to these are applied. */
  async received(lastSequences: readonly number[], signal?: AbortSignal): Promise<void> {
    if (lastSequences.length !== this.identity.streams) {
      throw new FormatError(`the end of ${lastSequences.length} streams was told`, "end");
    }
    const isHere = () =>
      lastSequences.every((last, index) => (this.streams[index + 1]?.lastApplied ?? 0) >= last);
    await this.#inTime("stallMs", signal, (inner) => this.#until(isHere, inner));
  }

  /** Tells the peer why it is over, if it can be told, and ends. */
  async abandon(error: unknown): Promise<void> {
    if (this.#failure === undefined) {
      const { code, message, exitStatus } = asVhuError(error);
      const { stream, link } = { stream: this.streams[0] as ReliableStream, link: this.#links[0] };
      link?.write(
        stream.send(FrameType.message, encodeMessage({ kind: "failed", code, message, exitStatus })),
      );
      await this.settled(ABANDON_MS);
    }
    this.fail(asVhuError(error));
  }

  /** Ends the session: everybody who waits for it gets the error. */
  fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this[Symbol.dispose]();
    this.#failed.abort(error);
    this.#wake();
  }

  /** All was said: the connections close after what is on its way. */
  finish(): void {
    this.#failure ??= new PeerError("the session is over");
    for (const timer of this.#timers) clearTimeout(timer);
    for (const [index, link] of this.#links.entries()) {
      link?.listen(
        () => {},
        () => link[Symbol.dispose](),
      );
      link?.finish();
      this.#pastBytes += bytesOf(link);
      this.#links[index] = undefined;
    }
    this.#wake();
  }

  [Symbol.dispose](): void {
    this.#failure ??= new PeerError("the session was closed");
    for (const timer of this.#timers) clearTimeout(timer);
    for (const [index, link] of this.#links.entries()) {
      link?.[Symbol.dispose]();
      this.#pastBytes += bytesOf(link);
      this.#links[index] = undefined;
    }
  }

  #onFrame(number: number, frame: Frame): void {
    const stream = this.streams[number] as ReliableStream;
    try {
      if (frame.type === FrameType.applied) {
        if (frame.sequence > stream.lastAcknowledged) this.#progressMs = performance.now();
        stream.acknowledge(frame.sequence);
        (this.#windows[number] as SendWindow).acknowledged(frame.sequence);
        this.#wake();
        return;
      }
      if (frame.stream !== number)
        throw new FormatError(`a frame of stream ${frame.stream}`, `stream ${number}`);
      if (!stream.receive(frame)) return;
      // Bytes without a meaning are no progress.
      if (frame.type !== FrameType.padding) this.#progressMs = performance.now();
      this.#take(number, frame);
    } catch (error) {
      void this.abandon(error);
    }
  }

  /** In order; a handler that takes time makes those behind it wait. */
  #take(number: number, frame: Frame): void {
    const work = (): Promise<void> | undefined => {
      if (frame.type === FrameType.message) return this.#onMessage(frame);
      if (!DATA_TYPES.has(frame.type)) return undefined;
      if (this.onData === undefined)
        throw new FormatError("data came before it was asked for", `stream ${number}`);
      return this.onData(frame);
    };
    if (this.#queued[number] === 0) {
      const result = work();
      if (result === undefined) this.#applied(number);
      else {
        this.#queued[number] = 1;
        this.#tails[number] = this.#finishLater(number, result);
      }
      return;
    }
    this.#queued[number] = (this.#queued[number] ?? 0) + 1;
    this.#unreadBytes[number] = (this.#unreadBytes[number] ?? 0) + frame.payload.length;
    if ((this.#unreadBytes[number] ?? 0) > MAX_LIVE_UNREAD_BYTES) {
      throw new FormatError("more came than may be under way", `stream ${number}`);
    }
    this.#tails[number] = (this.#tails[number] as Promise<void>).then(() => {
      this.#unreadBytes[number] = (this.#unreadBytes[number] ?? 0) - frame.payload.length;
      return this.#finishLater(number, work());
    });
  }

  async #finishLater(number: number, result: Promise<void> | undefined): Promise<void> {
    try {
      await result;
      this.#queued[number] = (this.#queued[number] ?? 1) - 1;
      if (this.#failure === undefined) this.#applied(number);
    } catch (error) {
      await this.abandon(error);
    }
  }

  #applied(number: number): void {
    const sequence = (this.streams[number] as ReliableStream).applied();
    this.#links[number]?.say(FrameType.applied, undefined, number, sequence);
    this.#wake();
  }

  #onMessage(frame: Frame): undefined {
    const message = decodeMessage(liveMessage, frame.payload, "message");
    if (message.kind === "failed") {
      // It waits for us to have it before it closes.
      this.#links[0]?.say(FrameType.applied, undefined, 0, frame.sequence);
      this.fail(new RemoteError(message));
      return;
    }
    if (this.#messages.length >= MAX_LIVE_WAITING_MESSAGES) {
      throw new FormatError("more messages came than anybody waits for", "session");
    }
    // The last word of a move: whoever has said it closes when it has arrived.
    if (message.kind === "running") this.#isSaid = true;
    this.#messages.push(message);
  }

  #onEnd(number: number, link: Link, cause: Error): void {
    if (this.#links[number] !== link) return;
    this.#pastBytes += bytesOf(link);
    this.#links[number] = undefined;
    link[Symbol.dispose]();
    if (this.#isSaid) return;
    if (cause instanceof FormatError) this.fail(cause);
    else this.expectLink(number, cause);
  }

  /** A stream has no connection: it must have one again in time. */
  expectLink(number: number, cause: Error): void {
    const { retryMs } = this.identity;
    const lost = new PeerError(
      `the connection was lost and not taken up again within ${retryMs} ms: ${cause.message}`,
      { cause, reconnect: true },
    );
    if (retryMs === 0) this.fail(lost);
    else {
      this.#timers[number] ??= setTimeout(() => this.fail(lost), retryMs);
      this.onBroken?.(number, cause);
    }
  }

  async #until(isSo: () => boolean, signal?: AbortSignal): Promise<void> {
    while (!isSo()) await this.#change(signal);
  }

  #inTime(
    limit: keyof Patience | (() => number),
    outer: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const limitMs = typeof limit === "function" ? limit : () => this.patience[limit];
    const isBroken = () => this.#timers.some((timer) => timer !== undefined);
    const pulse = () => ({
      progressMs: this.#progressMs,
      graceMs: isBroken() ? this.identity.retryMs : 0,
    });
    return inTime(pulse, limitMs, outer, work);
  }

  /** Until something has changed. */
  async #change(signal?: AbortSignal): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    signal?.throwIfAborted();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    signal?.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    signal?.throwIfAborted();
    if (this.#failure !== undefined && this.#messages.length === 0) throw this.#failure;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** Frames that are for whoever takes the machine. */
const DATA_TYPES: ReadonlySet<number> = new Set([
  FrameType.memory,
  FrameType.state,
  FrameType.disk,
  FrameType.pass,
]);

/** How long the peer may take to hear why it is over. */
const ABANDON_MS = 2_000;

function bytesOf(link: Link | undefined): number {
  return link === undefined ? 0 : link.sentBytes + link.receivedBytes;
}
