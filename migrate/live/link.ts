import type { Socket } from "node:net";
import { FormatError, PeerError } from "../../src/errors.ts";
import { LIVE_SILENCE_TIMEOUT_MS, MAX_LIVE_FRAME_BYTES, MAX_LIVE_UNSENT_BYTES } from "../../src/limits.ts";
import { encodeFrame, type Frame, FrameDecoder, FrameType } from "./frame.ts";

const NOTHING = new Uint8Array(0);
/** How often a side that has nothing to say says so. */
const ALIVE_MS = 1_000;

/** One connection, over TLS or plain: frames out, frames in, and its end, which comes once. */
export class Link implements Disposable {
  readonly #socket: Socket;
  readonly #decoder: FrameDecoder;
  readonly #timer: Timer;
  #onFrame: ((frame: Frame) => void) | undefined;
  #onEnd: ((cause: Error) => void) | undefined;
  readonly #early: Frame[] = [];
  #ended: Error | undefined;
  #maxBytes: number;
  #heardMs = performance.now();
  #saidMs = performance.now();
  /** Bytes in each direction, heads and checksums included. */
  sentBytes = 0;
  receivedBytes = 0;

  /** @param maxBytes That may come at all, until `trust`. */
  constructor(
    socket: Socket,
    maxBytes: number,
    readonly silenceMs = LIVE_SILENCE_TIMEOUT_MS,
  ) {
    this.#socket = socket;
    this.#maxBytes = maxBytes;
    this.#decoder = new FrameDecoder(maxBytes);
    socket.setNoDelay(true);
    socket.on("data", (bytes: Uint8Array) => this.#onData(bytes));
    socket.on("error", (cause) => this.#end(brokenBy(cause)));
    socket.on("end", () => this.#end(new PeerError("the peer closed the connection", { reconnect: true })));
    socket.on("close", () => this.#end(new PeerError("the connection is closed", { reconnect: true })));
    this.#timer = setInterval(() => this.#look(), Math.min(ALIVE_MS, silenceMs / 3));
  }

  get peer(): string {
    return `${this.#socket.remoteAddress ?? "?"}:${this.#socket.remotePort ?? "?"}`;
  }

  /** The peer has said who it is: as much may come as it likes. */
  trust(): void {
    this.#maxBytes = Number.POSITIVE_INFINITY;
    this.#decoder.maxPayloadBytes = MAX_LIVE_FRAME_BYTES;
  }

  /** What came before is handed out at once; so is an end that has come. */
  listen(onFrame: (frame: Frame) => void, onEnd: (cause: Error) => void): void {
    this.#onFrame = onFrame;
    this.#onEnd = onEnd;
    while (this.#early.length > 0 && this.#onFrame === onFrame) onFrame(this.#early.shift() as Frame);
    if (this.#ended !== undefined && this.#onEnd === onEnd) onEnd(this.#ended);
  }

  /** The frames that come next wait for the next `listen`. */
  pause(): void {
    this.#onFrame = undefined;
    this.#onEnd = undefined;
  }

  /** Bytes of a whole frame. Nothing is promised: the connection may be broken already. */
  write(bytes: Uint8Array): void {
    if (this.#ended !== undefined) return;
    this.#saidMs = performance.now();
    this.sentBytes += bytes.length;
    this.#socket.write(bytes);
    if (this.#socket.writableLength <= MAX_LIVE_UNSENT_BYTES) return;
    this.#end(new PeerError("the peer takes nothing of what is sent", { reconnect: true }));
  }

  /** A frame that has no number. */
  say(type: number, payload: Uint8Array = NOTHING, stream = 0, sequence = 0): void {
    this.write(encodeFrame({ type, flags: 0, stream, sequence, payload }));
  }

  /** Closes after what was written has gone out. */
  finish(): void {
    this.#socket.end();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#onFrame = undefined;
    this.#onEnd = undefined;
    this.#ended ??= new PeerError("the connection was closed here");
    this.#socket.destroy();
  }

  #onData(bytes: Uint8Array): void {
    if (this.#ended !== undefined) return;
    this.#heardMs = performance.now();
    this.receivedBytes += bytes.length;
    try {
      if (this.receivedBytes > this.#maxBytes) {
        throw new FormatError(
          `more than ${this.#maxBytes} bytes came before a word who it is`,
          "live connection",
        );
      }
      for (const frame of this.#decoder.push(bytes)) {
        if (frame.type === FrameType.alive) continue;
        if (this.#onFrame === undefined) this.#early.push(frame);
        else this.#onFrame(frame);
        if (this.#ended !== undefined) return;
      }
    } catch (cause) {
      this.#end(cause as Error);
    }
  }

  #look(): void {
    const nowMs = performance.now();
    if (nowMs - this.#heardMs > this.silenceMs) {
      this.#end(new PeerError(`the peer said nothing for ${this.silenceMs} ms`, { reconnect: true }));
    } else if (nowMs - this.#saidMs >= ALIVE_MS / 2) this.say(FrameType.alive);
  }

  #end(cause: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = cause;
    clearInterval(this.#timer);
    this.#socket.destroy();
    this.#onEnd?.(cause);
  }
}

function brokenBy(cause: Error): PeerError {
  return new PeerError(`the connection broke: ${cause.message}`, { cause, reconnect: true });
}
