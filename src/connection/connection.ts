import { PeerError, ProtocolError } from "../errors.ts";
import { DEFAULT_MESSAGE_TIMEOUT_MS, MAX_PAYLOAD_BYTES } from "../limits.ts";
import { Deadline, type Fd, NativeBuffer, POLL, UnixSocket, WOULD_BLOCK, waitReady } from "../sys/mod.ts";
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
  readonly messageTimeoutMs?: number;
}

const EMPTY_PAYLOAD = new Uint8Array(0);

/**
 * vhost-user framing over one UNIX socket: whole messages in, whole messages out, fds with the message they belong to.
 *
 * A receive asks the kernel for exactly the 12 header bytes and then for exactly the payload. Asking for more could
 * join two messages and hand the second one's fds to the first (tried).
 */
export class Connection implements Disposable {
  readonly #outgoing = new NativeBuffer(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  readonly #incoming = new NativeBuffer(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  readonly #messageTimeoutMs: number;

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
    if (payload.length > MAX_PAYLOAD_BYTES) {
      throw new ProtocolError(
        `a payload of ${payload.length} bytes is over ${MAX_PAYLOAD_BYTES}`,
        `${request}`,
      );
    }
    encodeHeader(this.#outgoing.view, request, flags, payload.length);
    this.#outgoing.bytes.set(payload, HEADER_BYTES);
    this.#sendAll(HEADER_BYTES + payload.length, fds);
  }

  /** The next message, waiting in line for its first byte for up to `timeoutMs` (0: not at all). */
  receive(timeoutMs: number): Received {
    const fds: Fd[] = [];
    const owned = new ReceivedFds(fds);
    try {
      const first = this.#receiveSome(0, HEADER_BYTES, fds, timeoutMs);
      if (first === WOULD_BLOCK) return "nothing";
      if (first === 0) return "closed";
      const deadline = new Deadline(this.#messageTimeoutMs);
      this.#receiveRest(first, HEADER_BYTES, fds, deadline);
      const header = decodeHeader(this.#incoming.view);
      if (header.size > MAX_PAYLOAD_BYTES) {
        throw new ProtocolError(
          `announces ${header.size} bytes, the limit is ${MAX_PAYLOAD_BYTES}`,
          `${header.request}`,
        );
      }
      this.#receiveRest(HEADER_BYTES, HEADER_BYTES + header.size, fds, deadline);
      const payload = this.#incoming.bytes.subarray(HEADER_BYTES, HEADER_BYTES + header.size);
      return { request: header.request, flags: header.flags, payload, fds: owned };
    } catch (error) {
      owned[Symbol.dispose]();
      throw error;
    }
  }

  /** As `receive`, but lets the event loop turn while it waits. */
  async receiveAsync(timeoutMs: number, signal?: AbortSignal): Promise<Received> {
    const ready = await waitReady(this.socket.fd, POLL.IN, new Deadline(timeoutMs), signal);
    return ready === 0 ? "nothing" : this.receive(0);
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
  }

  #sendAll(sizeBytes: number, fds: readonly Fd[]): void {
    let sent = 0;
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

  #receiveRest(from: number, to: number, fds: Fd[], deadline: Deadline): void {
    const fdsBefore = fds.length;
    let have = from;
    while (have < to) {
      // Each wait is bounded by what is left of the message's time: a peer that trickles gains nothing.
      const count = this.#receiveSome(have, to - have, fds, deadline.remainingMs);
      if (count === 0) throw new PeerError("the peer hung up inside a message", { reconnect: true });
      if (count === WOULD_BLOCK) throw stalled("stopped inside a message", this.#messageTimeoutMs);
      if (fds.length > fdsBefore) throw new ProtocolError("fds came with a message's later bytes", "framing");
      have += count;
    }
  }
}

function stalled(what: string, timeoutMs: number): PeerError {
  return new PeerError(`the peer ${what} for ${timeoutMs} ms`, { reconnect: true });
}
