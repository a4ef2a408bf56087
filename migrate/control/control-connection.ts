import { FormatError, PeerError } from "../../src/errors.ts";
import {
  Deadline,
  disposeAll,
  type Fd,
  NativeBuffer,
  POLL,
  type UnixSocket,
  WOULD_BLOCK,
  waitReady,
} from "../../src/sys/mod.ts";

/** u32 "VHUC", u32 length; then JSON. */
const HEADER_BYTES = 8;
const MAGIC = 0x43554856;
/** A description of 64 devices with 256 queues each stays far below. */
const MAX_MESSAGE_BYTES = 1 << 20;
const MESSAGE_TIMEOUT_MS = 5_000;

export interface ControlMessage {
  readonly body: unknown;
  /** The receiver's to close. */
  readonly fds: Fd[];
}

/** JSON messages with fds over a UNIX socket: how a native machine is controlled, and a device. */
export class ControlConnection implements Disposable {
  readonly #header = new NativeBuffer(HEADER_BYTES);

  /** @param peer what the other side is, for error messages */
  constructor(
    readonly socket: UnixSocket,
    readonly peer = "the machine",
  ) {
    socket.setTimeouts({ sendMs: MESSAGE_TIMEOUT_MS, receiveMs: MESSAGE_TIMEOUT_MS });
  }

  /** The fds stay the caller's. */
  send(body: unknown, fds: readonly Fd[] = []): void {
    const json = new TextEncoder().encode(JSON.stringify(body));
    const buffer = new NativeBuffer(HEADER_BYTES + json.length);
    buffer.view.setUint32(0, MAGIC, true);
    buffer.view.setUint32(4, json.length, true);
    buffer.bytes.set(json, HEADER_BYTES);
    for (let sent = 0; sent < buffer.sizeBytes; ) {
      const count = this.socket.send(buffer, sent, buffer.sizeBytes - sent, sent === 0 ? fds : []);
      if (count === WOULD_BLOCK) throw new PeerError("the other side of the control socket does not read");
      sent += count;
    }
  }

  /** One message that has begun to arrive; undefined when the other side hung up. */
  receive(): ControlMessage | undefined {
    const fds: Fd[] = [];
    try {
      if (!this.#fill(this.#header, fds, true)) return undefined;
      const sizeBytes = this.#header.view.getUint32(4, true);
      if (this.#header.view.getUint32(0, true) !== MAGIC || sizeBytes > MAX_MESSAGE_BYTES) {
        throw new FormatError("this is not vhu's control protocol", "control message", 0);
      }
      const payload = new NativeBuffer(sizeBytes);
      if (sizeBytes > 0) this.#fill(payload, fds, false);
      return { body: JSON.parse(new TextDecoder().decode(payload.bytes)), fds };
    } catch (error) {
      disposeAll(fds);
      if (error instanceof SyntaxError)
        throw new FormatError("the message is not JSON", "control message", HEADER_BYTES);
      throw error;
    }
  }

  /** Waits for a message while the event loop turns. @throws PeerError when none comes */
  async receiveAsync(timeoutMs: number, signal?: AbortSignal): Promise<ControlMessage> {
    const ready = await waitReady(this.socket.fd, POLL.IN, new Deadline(timeoutMs), signal);
    if (ready === 0) throw new PeerError(`${this.peer} did not answer within ${timeoutMs} ms`);
    const message = this.receive();
    if (message === undefined) throw new PeerError(`${this.peer} hung up`, { reconnect: true });
    return message;
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
  }

  #fill(buffer: NativeBuffer, fds: Fd[], mayEnd: boolean): boolean {
    for (let have = 0; have < buffer.sizeBytes; ) {
      const count = this.socket.receive(buffer, have, buffer.sizeBytes - have, fds);
      if (count === 0 && have === 0 && mayEnd) return false;
      if (count <= 0) throw new PeerError("a control message was cut off");
      have += count;
    }
    return true;
  }
}
