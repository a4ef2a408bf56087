import { PeerError, VhuError } from "../errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, STATE_CHUNK_BYTES } from "../limits.ts";
import { type EventLoop, type Fd, type Moved, NativeBuffer, PeerStream, POLL } from "../sys/mod.ts";

/** What came of a transfer: undefined when it ran to its end. */
export type PumpEnd = (error: VhuError | undefined) => void;

/** Steps of at most a chunk each: more than a pipe of the largest size holds. */
const CATCH_UP_STEPS = 4;

/**
 * Moves a byte stream over an fd that a peer chose, a step whenever the fd is ready, while the loop serves everything else.
 * Never blocks; ends with an error when no byte has moved for `idleTimeoutMs`. Owns and closes the fd.
 */
abstract class StreamPump {
  protected readonly buffer = new NativeBuffer(STATE_CHUNK_BYTES);
  readonly #stream: PeerStream;
  #cancelTimer: () => void = () => {};
  #progressed = false;
  #ended = false;

  protected constructor(
    readonly loop: EventLoop,
    stream: PeerStream,
    interest: number,
    readonly onEnd: PumpEnd,
    readonly idleTimeoutMs = DEFAULT_TRANSFER_IDLE_TIMEOUT_MS,
  ) {
    this.#stream = stream;
    const { watchable } = stream;
    try {
      if (watchable !== undefined) loop.watch(watchable, interest, () => void this.#onReady());
      else this.#scheduleStep();
    } catch (error) {
      stream[Symbol.dispose]();
      throw error;
    }
    this.#armTimer();
  }

  /** Ends the transfer from our side. `onEnd` is not called. */
  cancel(): void {
    this.#close();
  }

  get isRunning(): boolean {
    return !this.#ended;
  }

  /** Moves a piece. "end": the stream is complete. */
  protected abstract step(stream: PeerStream): Moved | "end";

  /** Takes note of what the peer did since the last turn: whoever closed its end in between has ended the transfer. */
  catchUp(): void {
    for (let steps = 0; steps < CATCH_UP_STEPS && !this.#ended; steps++) {
      if (this.#onReady() === "would-block") return;
    }
  }

  #onReady(): Moved | "end" {
    let moved: Moved | "end";
    try {
      moved = this.step(this.#stream);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.#finish(error);
      return "end";
    }
    if (moved === "end") this.#finish(undefined);
    else if (moved !== "would-block") this.#progressed = true;
    return moved;
  }

  #scheduleStep(): void {
    this.loop.schedule(0, () => {
      if (this.#ended) return;
      this.#onReady();
      if (!this.#ended) this.#scheduleStep();
    });
  }

  #armTimer(): void {
    this.#progressed = false;
    this.#cancelTimer = this.loop.schedule(this.idleTimeoutMs, () => {
      if (this.#progressed) this.#armTimer();
      else {
        const message = `the device-state transfer stalled: no byte moved for ${this.idleTimeoutMs} ms`;
        this.#finish(new PeerError(message, { reconnect: true }));
      }
    });
  }

  #finish(error: VhuError | undefined): void {
    this.#close();
    this.onEnd(error);
  }

  /** Called once, when the pump has ended in whatever way. */
  protected onClose(): void {}

  #close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#cancelTimer();
    const { watchable } = this.#stream;
    if (watchable !== undefined) this.loop.unwatch(watchable);
    this.#stream[Symbol.dispose]();
    this.onClose();
  }
}

/** Writes chunks as they are pulled, then closes the fd: for the reader, the end of the state. */
export class OutgoingPump extends StreamPump {
  readonly #chunks: Iterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #start = 0;
  #end = 0;
  #drained = false;

  constructor(loop: EventLoop, fd: Fd, chunks: Iterable<Uint8Array>, onEnd: PumpEnd, idleTimeoutMs?: number) {
    super(loop, PeerStream.forWriting(fd), POLL.OUT, onEnd, idleTimeoutMs);
    this.#chunks = chunks[Symbol.iterator]();
  }

  protected override onClose(): void {
    // Lets a generator that was not pulled to its end release what it holds.
    this.#chunks.return?.();
  }

  protected step(stream: PeerStream): Moved | "end" {
    if (this.#start === this.#end) this.#fill();
    if (this.#start === this.#end) return "end";
    const moved = stream.write(this.buffer, this.#start, this.#end - this.#start);
    if (moved !== "would-block") this.#start += moved;
    return moved;
  }

  /** Packs small chunks together: one write per buffer, not per chunk. */
  #fill(): void {
    this.#start = 0;
    this.#end = 0;
    while (this.#end < this.buffer.sizeBytes) {
      if (this.#chunk.length === 0 && !this.#pull()) return;
      const piece = this.#chunk.subarray(0, this.buffer.sizeBytes - this.#end);
      this.buffer.bytes.set(piece, this.#end);
      this.#end += piece.length;
      this.#chunk = this.#chunk.subarray(piece.length);
    }
  }

  #pull(): boolean {
    while (!this.#drained) {
      const next = this.#chunks.next();
      if (next.done) this.#drained = true;
      else if (next.value.length > 0) {
        this.#chunk = next.value;
        return true;
      }
    }
    return false;
  }
}

/** Reads until the writer closes and hands on what came; the bytes are valid during the call of `onBytes`. */
export class IncomingPump extends StreamPump {
  constructor(
    loop: EventLoop,
    fd: Fd,
    readonly onBytes: (bytes: Uint8Array) => void,
    onEnd: PumpEnd,
    idleTimeoutMs?: number,
  ) {
    super(loop, PeerStream.forReading(fd), POLL.IN, onEnd, idleTimeoutMs);
  }

  protected step(stream: PeerStream): Moved | "end" {
    const moved = stream.read(this.buffer);
    if (moved === 0) return "end";
    if (moved !== "would-block") this.onBytes(this.buffer.bytes.subarray(0, moved));
    return moved;
  }
}
