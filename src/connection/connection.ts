import { PeerError, ProtocolError } from "../errors.ts";
import { DEFAULT_MESSAGE_TIMEOUT_MS, MAX_PAYLOAD_BYTES } from "../limits.ts";
import {
  Deadline,
  disposeAll,
  type Fd,
  NativeBuffer,
  POLL,
  UnixSocket,
  WOULD_BLOCK,
  waitReady,
} from "../sys/mod.ts";
import { decodeHeader, encodeHeader, HEADER_BYTES } from "../wire/mod.ts";
import { ReceivedFds } from "./received-fds.ts";

/** One message as it came. `payload` is valid until the next receive; `fds` must be disposed of. */
export interface Frame {
  readonly request: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  readonly fds: ReceivedFds;
}

/** "nothing": no message within the time; "closed": the peer hung up between two messages. */
export type Received = Frame | "nothing" | "closed";

export interface ConnectionOptions {
  /** How long the rest of a message may take once its first byte is here, and how long a send may wait. */
  readonly messageTimeoutMs?: number | undefined;
}

const EMPTY_PAYLOAD = new Uint8Array(0);

/** A message of which a part is here. */
interface PartialMessage {
  have: number;
  readonly fds: Fd[];
  readonly deadline: Deadline;
}

/**
 * vhost-user framing over one UNIX socket: whole messages in, whole messages out, fds with the message they belong to.
 *
 * A receive asks the kernel for exactly the 12 header bytes and then for exactly the payload. Asking for more could
 * join two messages and hand the second one's fds to the first (tried).
 *
 * A message of which only a part is here is kept: nobody has to wait in line for a peer that trickles.
 */
export class Connection implements Disposable {
  readonly #outgoing = new NativeBuffer(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  readonly #incoming = new NativeBuffer(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  readonly #messageTimeoutMs: number;
  #partial: PartialMessage | undefined;

  constructor(
    readonly socket: UnixSocket,
    options: ConnectionOptions = {},
  ) {
    this.#messageTimeoutMs = options.messageTimeoutMs ?? DEFAULT_MESSAGE_TIMEOUT_MS;
    socket.setTimeouts({ sendMs: this.#messageTimeoutMs });
  }

  /** Two ends of a fresh socket pair. */
  static pair(options?: ConnectionOptions): [Connection, Connection] {
    const [a, b] = UnixSocket.pair();
    return [new Connection(a, options), new Connection(b, options)];
  }

  /** Sends one message. The fds stay the caller's. @throws PeerError when the peer hung up or does not read */
  send(request: number, flags: number, payload: Uint8Array = EMPTY_PAYLOAD, fds: readonly Fd[] = []): void {
    this.#sendRest(0, this.#encode(request, flags, payload), fds);
  }

  /**
   * As `send`, but returns false, with nothing sent, when the socket has no room. What fits in part is sent to its end in
   * line: that needs a message of more than half of the smallest socket buffer.
   */
  trySend(request: number, flags: number, payload: Uint8Array = EMPTY_PAYLOAD): boolean {
    const sizeBytes = this.#encode(request, flags, payload);
    const sent = this.socket.send(this.#outgoing, 0, sizeBytes, [], true);
    if (sent === WOULD_BLOCK) return false;
    this.#sendRest(sent, sizeBytes, []);
    return true;
  }

  /** How long the rest of a message that is here in part may still take; undefined: none is. */
  get restTimeoutMs(): number | undefined {
    return this.#partial?.deadline.remainingMs;
  }

  /**
   * The next message. Waits in line for its first byte for up to `timeoutMs`, and then for the rest; with 0 it never waits:
   * "nothing" may mean then that a part is here, and another call goes on with it.
   * @throws PeerError when the rest of a message did not come in time
   */
  receive(timeoutMs: number): Received {
    try {
      if (this.#partial === undefined) {
        const fds: Fd[] = [];
        const have = this.#receiveSome(0, HEADER_BYTES, fds, timeoutMs);
        if (have === WOULD_BLOCK) return "nothing";
        if (have === 0) return "closed";
        this.#partial = { have, fds, deadline: new Deadline(this.#messageTimeoutMs) };
      }
      return this.#receiveRest(this.#partial, timeoutMs > 0);
    } catch (error) {
      this.#dropPartial();
      throw error;
    }
  }

  /** As `receive`, but lets the event loop turn while it waits. */
  async receiveAsync(timeoutMs: number, signal?: AbortSignal): Promise<Received> {
    const deadline = new Deadline(timeoutMs);
    for (;;) {
      const wait = this.#partial?.deadline ?? deadline;
      const ready = await waitReady(this.socket.fd, POLL.IN, wait, signal);
      if (ready === 0 && this.#partial === undefined) return "nothing";
      const received = this.receive(0);
      if (received !== "nothing") return received;
    }
  }

  [Symbol.dispose](): void {
    this.#dropPartial();
    this.socket[Symbol.dispose]();
  }

  #dropPartial(): void {
    disposeAll(this.#partial?.fds ?? []);
    this.#partial = undefined;
  }

  #encode(request: number, flags: number, payload: Uint8Array): number {
    if (payload.length > MAX_PAYLOAD_BYTES) {
      throw new ProtocolError(
        `a payload of ${payload.length} bytes is over ${MAX_PAYLOAD_BYTES}`,
        `${request}`,
      );
    }
    encodeHeader(this.#outgoing.view, request, flags, payload.length);
    this.#outgoing.bytes.set(payload, HEADER_BYTES);
    return HEADER_BYTES + payload.length;
  }

  #sendRest(from: number, sizeBytes: number, fds: readonly Fd[]): void {
    let sent = from;
    const deadline = new Deadline(this.#messageTimeoutMs);
    while (sent < sizeBytes) {
      const count = this.socket.send(this.#outgoing, sent, sizeBytes - sent, sent === 0 ? fds : []);
      if (count === WOULD_BLOCK || deadline.expired) throw stalled("took no bytes", this.#messageTimeoutMs);
      sent += count;
    }
  }

  #receiveSome(offset: number, sizeBytes: number, fds: Fd[], timeoutMs: number): number {
    if (timeoutMs > 0) this.socket.setTimeouts({ receiveMs: Math.min(Math.ceil(timeoutMs), 0x7fffffff) });
    return this.socket.receive(this.#incoming, offset, sizeBytes, fds, timeoutMs <= 0);
  }

  #receiveRest(partial: PartialMessage, wait: boolean): Frame | "nothing" {
    if (!this.#receiveUpTo(HEADER_BYTES, partial, wait)) return "nothing";
    const header = decodeHeader(this.#incoming.view);
    if (header.size > MAX_PAYLOAD_BYTES) {
      throw new ProtocolError(
        `announces ${header.size} bytes, the limit is ${MAX_PAYLOAD_BYTES}`,
        `${header.request}`,
      );
    }
    const end = HEADER_BYTES + header.size;
    if (!this.#receiveUpTo(end, partial, wait)) return "nothing";
    this.#partial = undefined;
    const payload = this.#incoming.bytes.subarray(HEADER_BYTES, end);
    return { request: header.request, flags: header.flags, payload, fds: new ReceivedFds(partial.fds) };
  }

  /** False when the bytes are not all here yet; with `wait` they are, or the message's time was over. */
  #receiveUpTo(to: number, partial: PartialMessage, wait: boolean): boolean {
    const { fds, deadline } = partial;
    const fdsBefore = fds.length;
    while (partial.have < to) {
      // Each wait is bounded by what is left of the message's time: a peer that trickles gains nothing.
      const timeoutMs = wait ? deadline.remainingMs : 0;
      const count = this.#receiveSome(partial.have, to - partial.have, fds, timeoutMs);
      if (count === 0) throw new PeerError("the peer hung up inside a message", { reconnect: true });
      if (count === WOULD_BLOCK) {
        if (!deadline.expired && !wait) return false;
        throw stalled("stopped inside a message", this.#messageTimeoutMs);
      }
      if (fds.length > fdsBefore) throw new ProtocolError("fds came with a message's later bytes", "framing");
      partial.have += count;
    }
    return true;
  }
}

function stalled(what: string, timeoutMs: number): PeerError {
  return new PeerError(`the peer ${what} for ${timeoutMs} ms`, { reconnect: true });
}
