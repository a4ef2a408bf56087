import { PeerError, SyscallError } from "../errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, MAX_DEVICE_STATE_BYTES, STATE_CHUNK_BYTES } from "../limits.ts";
import { Deadline, eventLoopTurn, type Fd, NativeBuffer, PeerStream, POLL, waitReady } from "../sys/mod.ts";

export interface StreamOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long the stream may go without a byte. */
  readonly idleTimeoutMs?: number | undefined;
  readonly maxBytes?: number | undefined;
}

/** How many pieces move before the event loop gets a turn (Ctrl-C, progress). */
const ROUNDS_PER_TURN = 64;

/**
 * Reads a device state to its end. Takes the fd.
 * @param onBytes takes a piece as it comes; valid during the call
 * @returns the size in bytes
 * @throws PeerError when no byte comes for too long, or too many do
 */
export async function readStateStream(
  fd: Fd,
  onBytes: (bytes: Uint8Array) => void,
  options: StreamOptions = {},
): Promise<number> {
  const maxBytes = options.maxBytes ?? MAX_DEVICE_STATE_BYTES;
  using stream = PeerStream.forReading(fd);
  const buffer = new NativeBuffer(STATE_CHUNK_BYTES);
  let sizeBytes = 0;
  for (let round = 1; ; round++) {
    if (round % ROUNDS_PER_TURN === 0) await turn(options);
    const moved = orPeerError("stopped sending", () => stream.read(buffer));
    if (moved === 0) return sizeBytes;
    if (moved === "would-block") await waitForPeer(stream, POLL.IN, "sent", options);
    else {
      sizeBytes += moved;
      if (sizeBytes > maxBytes)
        throw new PeerError(`the device state is larger than the limit of ${maxBytes} bytes`);
      onBytes(buffer.bytes.subarray(0, moved));
    }
  }
}

/**
 * Writes a device state and closes the fd, which it takes.
 * @returns the size in bytes
 * @throws PeerError when the back-end takes no byte for too long, or closes early
 */
export async function writeStateStream(
  fd: Fd,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: StreamOptions = {},
): Promise<number> {
  using stream = PeerStream.forWriting(fd);
  const buffer = new NativeBuffer(STATE_CHUNK_BYTES);
  let sizeBytes = 0;
  let round = 0;
  for await (const chunk of abortable(chunks, options.signal)) {
    for (let at = 0; at < chunk.length; at += buffer.sizeBytes) {
      if (++round % ROUNDS_PER_TURN === 0) await turn(options);
      const piece = chunk.subarray(at, at + buffer.sizeBytes);
      buffer.bytes.set(piece);
      await writePiece(stream, buffer, piece.length, options);
      sizeBytes += piece.length;
    }
  }
  return sizeBytes;
}

/** The chunks, and an end of the wait for the next one when the signal is aborted. */
async function* abortable(
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  if (signal === undefined || !(Symbol.asyncIterator in chunks)) return yield* chunks;
  const iterator = chunks[Symbol.asyncIterator]();
  let isWaiting = false;
  try {
    for (;;) {
      isWaiting = true;
      const next = await orAbort(iterator.next(), signal);
      isWaiting = false;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    const end = iterator.return?.();
    // A source that is still waiting ends after that wait, which may be never.
    if (isWaiting) end?.catch(() => {});
    else await end;
  }
}

function orAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    if (signal.aborted) onAbort();
  });
}

async function turn(options: StreamOptions): Promise<void> {
  await eventLoopTurn();
  options.signal?.throwIfAborted();
}

async function writePiece(
  stream: PeerStream,
  buffer: NativeBuffer,
  sizeBytes: number,
  options: StreamOptions,
): Promise<void> {
  for (let done = 0; done < sizeBytes; ) {
    const moved = orPeerError("stopped reading", () => stream.write(buffer, done, sizeBytes - done));
    if (moved === "would-block") await waitForPeer(stream, POLL.OUT, "took", options);
    else done += moved;
  }
}

/** A pipe that lost its reader says EPIPE; a socket says ECONNRESET, too, when bytes were left unread. */
function orPeerError<T>(did: string, move: () => T): T {
  try {
    return move();
  } catch (error) {
    const gone = error instanceof SyscallError && (error.errno === "EPIPE" || error.errno === "ECONNRESET");
    if (!gone) throw error;
    throw new PeerError(`the back-end ${did} its state before the end`, { cause: error, reconnect: true });
  }
}

async function waitForPeer(
  stream: PeerStream,
  events: number,
  did: string,
  options: StreamOptions,
): Promise<void> {
  const idleTimeoutMs = options.idleTimeoutMs ?? DEFAULT_TRANSFER_IDLE_TIMEOUT_MS;
  const fd = stream.watchable ?? stream.fd;
  if ((await waitReady(fd, events, new Deadline(idleTimeoutMs), options.signal)) !== 0) return;
  const message = `the back-end ${did} no byte of its device state for ${idleTimeoutMs} ms`;
  throw new PeerError(message, { reconnect: true });
}
